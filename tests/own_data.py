"""A small data set of one's own, as labelling tools write it: drawn shapes as COCO JSON, VOC XML, YOLO text or CSV."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from frdet.datasets.shapes.drawing import CLASSES, draw_image

SIZE = (96, 128)  # height, width


class Picture(NamedTuple):
    """An image and its objects: class name and x1, y1, x2, y2 in pixels, x2 and y2 outside the object."""

    name: str
    pixels: np.ndarray
    objects: list[tuple[str, list[int]]]


def draw(count: int, *, classes: Sequence[str] = CLASSES, size: tuple[int, int] = SIZE, seed: int = 0) -> list[Picture]:
    """``count`` images with up to three objects; the last one has none. ``classes`` are other names for the shapes."""
    pictures = []
    for number in range(count):
        pixels, shapes = draw_image(np.random.default_rng([seed, number]), *size, max_objects=3)
        objects = []
        for shape in shapes:
            rows, columns = (np.flatnonzero(shape.mask.any(axis=axis)).tolist() for axis in (1, 0))
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            objects.append((classes[shape.label % len(classes)], box))
        pictures.append(Picture(f'picture_{number}.jpg', pixels, objects))
    pictures[-1] = Picture(pictures[-1].name, np.full((*size, 3), 90, np.uint8), [])
    return pictures


def write(root: Path, layout: str, parts: dict[str, list[Picture]]) -> Path:
    """Write ``parts``, such as 'train' and 'val', below ``root``; the only key 'all' writes a source without parts.

    ``layout`` is a key of ``LAYOUTS``.
    """
    LAYOUTS[layout](root, parts)
    return root


def _save(folder: Path, pictures: list[Picture]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        Image.fromarray(picture.pixels).save(folder / picture.name, quality=92)


def _classes(parts: dict[str, list[Picture]]) -> list[str]:
    return sorted({name for pictures in parts.values() for picture in pictures for name, _ in picture.objects})


def _write_coco(root: Path, parts: dict[str, list[Picture]]) -> None:
    """Roboflow's layout for parts: train/_annotations.coco.json; otherwise annotations.json and images/."""
    ids = {name: number for number, name in enumerate(_classes(parts), start=1)}
    for part, pictures in parts.items():
        folder, file = (
            (root / 'images', 'annotations.json') if part == 'all' else (root / part, '_annotations.coco.json')
        )
        _save(folder, pictures)
        images, annotations = [], []
        for image_id, picture in enumerate(pictures, start=1):
            height, width = picture.pixels.shape[:2]
            images.append(dict(id=image_id, file_name=picture.name, height=height, width=width))
            for name, (x1, y1, x2, y2) in picture.objects:
                entry = dict(id=len(annotations) + 1, image_id=image_id, category_id=ids[name], iscrowd=0)
                annotations.append({**entry, 'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': (x2 - x1) * (y2 - y1)})
        categories = [dict(id=number, name=name) for name, number in ids.items()]
        content = dict(images=images, annotations=annotations, categories=categories)
        ((root if part == 'all' else folder) / file).write_text(
            json.dumps(content, ensure_ascii=False), encoding='utf-8'
        )


def _write_voc(root: Path, parts: dict[str, list[Picture]]) -> None:
    """Annotations/ and JPEGImages/, and ImageSets/Main/ for parts. Pixels count from 1, and the last one is inside."""
    for part, pictures in parts.items():
        _save(root / 'JPEGImages', [one._replace(name=_named(part, one.name)) for one in pictures])
        (root / 'Annotations').mkdir(exist_ok=True)
        for picture in pictures:
            name = _named(part, picture.name)
            height, width = picture.pixels.shape[:2]
            objects = ''.join(
                f'<object><name>{escape(label)}</name><difficult>0</difficult><bndbox><xmin>{x1 + 1}</xmin>'
                f'<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>'
                for label, (x1, y1, x2, y2) in picture.objects
            )
            size = f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
            text = f'<annotation><filename>{name}</filename>{size}{objects}</annotation>'
            (root / 'Annotations' / Path(name).with_suffix('.xml')).write_text(text, encoding='utf-8')
        if part != 'all':
            (root / 'ImageSets/Main').mkdir(parents=True, exist_ok=True)
            stems = ''.join(f'{Path(_named(part, one.name)).stem}\n' for one in pictures)
            (root / f'ImageSets/Main/{part}.txt').write_text(stems)


def _write_yolo(root: Path, parts: dict[str, list[Picture]]) -> None:
    """Ultralytics' layout: data.yaml, images/train/, labels/train/; without parts images/, labels/ and classes.txt."""
    classes = _classes(parts)
    for part, pictures in parts.items():
        inside = '' if part == 'all' else part
        _save(root / 'images' / inside, pictures)
        labels = root / 'labels' / inside
        labels.mkdir(parents=True)
        for picture in pictures:
            height, width = picture.pixels.shape[:2]
            lines = [
                f'{classes.index(name)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} '
                f'{(x2 - x1) / width} {(y2 - y1) / height}\n'
                for name, (x1, y1, x2, y2) in picture.objects
            ]
            (labels / picture.name).with_suffix('.txt').write_text(''.join(lines))
    if set(parts) == {'all'}:
        (root / 'classes.txt').write_text('\n'.join(classes) + '\n', encoding='utf-8')
        return
    lines = [f'{part}: images/{part}' for part in parts] + ['names:', *(f'  - {json.dumps(name)}' for name in classes)]
    (root / 'data.yaml').write_text('\n'.join(lines) + '\n', encoding='utf-8')


def _write_csv(root: Path, parts: dict[str, list[Picture]]) -> None:
    """TensorFlow's columns: labels.csv and images/; parts are a column ``split``. An empty image has a row."""
    with_parts = set(parts) != {'all'}
    columns = [
        'filename',
        'width',
        'height',
        'class',
        'xmin',
        'ymin',
        'xmax',
        'ymax',
        *(['split'] if with_parts else []),
    ]
    rows = []
    for part, pictures in parts.items():
        _save(root / 'images', [one._replace(name=_named(part, one.name)) for one in pictures])
        for picture in pictures:
            height, width = picture.pixels.shape[:2]
            for name, box in picture.objects or [('', ['', '', '', ''])]:
                rows.append([_named(part, picture.name), width, height, name, *box, *([part] if with_parts else [])])
    with open(root / 'labels.csv', 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows([columns, *rows])


def _named(part: str, name: str) -> str:
    """The name of an image where all parts share a folder."""
    return name if part == 'all' else f'{part}_{name}'


LAYOUTS: dict[str, Callable[[Path, dict[str, list[Picture]]], None]] = {
    'coco': _write_coco,
    'voc': _write_voc,
    'yolo': _write_yolo,
    'csv': _write_csv,
}
