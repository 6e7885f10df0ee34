"""Writing a data set in another format, with its images."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import yaml

from frdet.datasets.annotations import Annotations, Id
from frdet.datasets.base import DetDataset
from frdet.datasets.coco import write_coco
from frdet.datasets.formats.recognising import recognise
from frdet.datasets.formats.yolo import label_file
from frdet.datasets.locating import examples
from frdet.errors import DataError
from frdet.files import UNFINISHED
from frdet.progress import track
from frdet.registry import DATASETS

DECIMALS = 3  # of a pixel, in COCO JSON and VOC XML
FRACTION_DECIMALS = 8  # in YOLO text: a millionth of a pixel of an image of 100 pixels


class Part(NamedTuple):
    """A split to write: its name, its annotations with classes of all splits, and the folder of its images.

    ``content.images`` have the names that the images get, ``files`` are the images.
    """

    name: str
    content: Annotations
    files: list[str]

    def objects(self) -> list[list[tuple[int, np.ndarray]]]:
        """For each image the boxes xyxy in pixels that have an area in it, with their positions. They are cut to it."""
        sizes = np.array([(image['width'], image['height']) for image in self.content.images])
        corners = self.content.xywh.copy()
        corners[:, 2:] += corners[:, :2]
        corners = corners.reshape(-1, 2, 2).clip(0, sizes[self.content.image_index][:, None]).reshape(-1, 4)
        found: list[list[tuple[int, np.ndarray]]] = [[] for _ in self.content.images]
        for position, box in enumerate(corners):
            if (box[2:] > box[:2]).all():
                found[self.content.image_index[position]].append((position, box))
        return found


def convert(source: str | Path, target: str | Path, to: str, *, link: bool = False) -> list[str]:
    """Write the data set at ``source`` to the new folder ``target``; it appears there when all is written.

    Splits, classes and folders of images are kept. COCO JSON keeps every box with ``DECIMALS`` decimals, its crowds,
    areas and ignored objects, and the masks of COCO JSON. VOC XML cuts boxes to their images, and crowds and ignored
    objects become ``difficult``. YOLO text has neither, so they are left out.

    Args:
        source: what ``recognise`` takes.
        target: a folder that does not exist or is empty.
        to: a key of ``WRITERS``.
        link: make symbolic links to the images, rather than copies.

    Returns:
        Sentences on what was written and left out.

    Raises:
        DataError: the source has no labels or cannot be read, or the target has files or cannot be written.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f'{target} exists: give a new folder')
    if target.resolve().is_relative_to(Path(source).resolve()):
        raise DataError(f'{target} is inside {source}, which would then hold two formats: give a folder outside')
    found = recognise(source)
    if found.reader == 'ImageFolder':
        raise DataError(f'{source} has images without labels: there is nothing to convert')
    masks = {'with_masks': True} if to == 'coco' else {}
    parts, said = _read({'type': found.reader, 'data_root': found.root, **masks}, found.parts)
    unfinished = target.with_name(f'.{target.name}.{os.getpid()}{UNFINISHED}')
    try:
        unfinished.mkdir(parents=True)
        said += WRITERS[to](unfinished, parts, os.symlink if link else shutil.copyfile)
        unfinished.rename(target)
    except OSError as error:
        raise DataError(f'{target} cannot be written ({error.strerror})') from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [f'{source}: {found.format}', *found.notes, *said, f'Written to {target}']


def _read(reader: dict, arguments: dict[str, dict]) -> tuple[list[Part], list[str]]:
    """All parts with one list of classes, and sentences on what they have and what is left out."""
    read: dict[str, tuple[Annotations, str]] = {}
    said: list[str] = []
    for name, args in arguments.items():
        dataset: DetDataset = DATASETS.build({**reader, **args, 'pipeline': [], 'lazy_init': True})
        content, folder = dataset.annotations(), dataset.data_prefix['img']
        files = [os.path.join(folder, image['file_name']) for image in content.images]
        if missing := [file for file in files if not os.path.isfile(file)]:
            said.append(f'{name}: {len(missing)} images are not there and are left out: {examples(missing)}')
            content = content.subset(np.flatnonzero([os.path.isfile(file) for file in files]))
        said.append(f'{name}: {len(content.images)} images, {len(content.boxes)} boxes')
        said += dataset.notes
        read[name] = content, folder
    classes = _classes([content for content, _ in read.values()])
    return [_part(name, content, folder, classes) for name, (content, folder) in read.items()], said


def _classes(contents: Sequence[Annotations]) -> dict[str, Id]:
    """The classes of all parts with their ids; these count from 1 unless all parts agree on whole numbers from 1."""
    found: dict[str, Id] = {}
    for content in contents:
        for name, number in content.categories.items():
            found.setdefault(name, number)
    agree = all(found[name] == number for content in contents for name, number in content.categories.items())
    ids = set(found.values())
    if not agree or len(ids) < len(found) or not all(isinstance(one, int) and one > 0 for one in ids):
        return {name: number for number, name in enumerate(found, start=1)}
    return found


def _part(name: str, content: Annotations, folder: str, classes: dict[str, Id]) -> Part:
    images = content.images
    common = os.path.commonpath([os.path.dirname(image['file_name']) for image in images] or [''])
    taken: set[str] = set()
    named = [{**image, 'file_name': _free(image['file_name'], common, taken)} for image in images]
    if not all(isinstance(image['id'], int) for image in images):
        named = [{**image, 'id': number} for number, image in enumerate(named, start=1)]
    place_of = {one: place for place, one in enumerate(classes)}
    changed = Annotations(
        images=named,
        categories=classes,
        image_index=content.image_index,
        category_index=content.labels(place_of),
        xywh=content.xywh.round(DECIMALS),
        crowd=content.crowd,
        ignored=content.ignored,
        area=content.area.round(DECIMALS),
        masks=content.masks,
    )
    return Part(name, changed, [os.path.join(folder, image['file_name']) for image in images])


def _free(name: str, common: str, taken: set[str]) -> str:
    """``name`` below the folder ``common``, with another stem if an image before it has the same."""
    name = os.path.relpath(name, common or ('/' if os.path.isabs(name) else '.'))
    if name.startswith('../'):
        name = os.path.basename(name)
    stem, ending = os.path.splitext(name)
    free, number = stem, 1
    while free in taken:
        number += 1
        free = f'{stem}_{number}'
    taken.add(free)
    return free + ending


def _put(part: Part, folder: Path, put: Callable) -> list[Path]:
    """Copy or link the images of ``part`` into ``folder``. Returns their paths."""
    paths = [folder / image['file_name'] for image in part.content.images]
    pairs = zip(part.files, paths, strict=True)
    for file, path in track(pairs, f'Writing images of {part.name}', total=len(paths)):
        path.parent.mkdir(parents=True, exist_ok=True)
        put(os.path.abspath(file), path)
    return paths


def _write_coco(root: Path, parts: list[Part], put: Callable) -> list[str]:
    for part in parts:
        is_all = part.name == 'all'
        _put(part, root / ('images' if is_all else part.name), put)
        write_coco(part.content, root / 'annotations' / f'instances{"" if is_all else f"_{part.name}"}.json')
    return []


def _write_voc(root: Path, parts: list[Part], put: Callable) -> list[str]:
    said: list[str] = []
    lists = root / 'ImageSets' / 'Main'
    for part in parts:
        below = '' if _have_own_names(parts) else part.name
        _put(part, root / 'JPEGImages' / below, put)
        stems = [os.path.join(below, os.path.splitext(image['file_name'])[0]) for image in part.content.images]
        boxes = part.objects()
        said += _lost(part, boxes)
        for image, stem, objects in zip(part.content.images, stems, boxes, strict=True):
            path = root / 'Annotations' / f'{stem}.xml'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_xml(image, objects, part.content))
        if part.name != 'all':
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f'{part.name}.txt').write_text(''.join(f'{stem}\n' for stem in stems), encoding='utf-8')
    return said


def _lost(part: Part, objects: list) -> list[str]:
    lost = len(part.content.boxes) - sum(map(len, objects))
    return [f'{part.name}: {lost} boxes without an area in their image are left out'] if lost else []


def _have_own_names(parts: list[Part]) -> bool:
    """Whether no two images of different parts have the same stem."""
    stems = [os.path.splitext(image['file_name'])[0] for part in parts for image in part.content.images]
    return len(set(stems)) == len(stems)


def _xml(image: dict, objects: list[tuple[int, np.ndarray]], content: Annotations) -> bytes:
    root = ElementTree.Element('annotation')
    _add(root, filename=os.path.basename(image['file_name']))
    _add(ElementTree.SubElement(root, 'size'), width=image['width'], height=image['height'], depth=3)
    names = list(content.categories)
    for position, box in objects:
        item = ElementTree.SubElement(root, 'object')
        hard = content.crowd[position] or content.ignored[position]
        _add(item, name=names[content.category_index[position]], truncated=0, difficult=int(hard))
        sides = [f'{side:.{DECIMALS}f}'.rstrip('0').rstrip('.') for side in box + [1, 1, 0, 0]]  # pixels from 1
        _add(ElementTree.SubElement(item, 'bndbox'), **dict(zip(('xmin', 'ymin', 'xmax', 'ymax'), sides, strict=True)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding='utf-8')


def _add(item: ElementTree.Element, **texts: object) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(item, name).text = str(text)


def _write_yolo(root: Path, parts: list[Part], put: Callable) -> list[str]:
    said: list[str] = []
    content: dict[str, object] = {}
    for part in parts:
        split = 'train' if part.name == 'all' else part.name
        paths = _put(part, root / 'images' / split, put)
        left_out = part.content.crowd | part.content.ignored
        boxes = part.objects()
        said += _lost(part, boxes)
        for path, image, objects in zip(paths, part.content.images, boxes, strict=True):
            lines = [
                f'{part.content.category_index[position]} {_fractions(box, image)}\n'
                for position, box in objects
                if not left_out[position]
            ]
            labels = Path(label_file(str(path), str(root), None))
            labels.parent.mkdir(parents=True, exist_ok=True)
            labels.write_text(''.join(lines))
        content[split] = f'images/{split}'
        if left_out.any():
            said.append(f'{part.name}: {left_out.sum()} crowds and ignored objects are left out, which YOLO text lacks')
    content['names'] = dict(enumerate(parts[0].content.categories))
    (root / 'data.yaml').write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding='utf-8')
    return said


def _fractions(box: np.ndarray, image: dict) -> str:
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    values = np.concatenate([centre, size]) / ([image['width'], image['height']] * 2)
    return ' '.join(f'{value:.{FRACTION_DECIMALS}f}' for value in values)


#: Format to write -> the function that writes it.
WRITERS: dict[str, Callable[[Path, list[Part], Callable], list[str]]] = {
    'coco': _write_coco,
    'voc': _write_voc,
    'yolo': _write_yolo,
}
