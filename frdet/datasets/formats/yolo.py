"""YOLO's text files: a line for every object, in fractions of the image."""

import os
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from frdet.datasets.annotations import Annotations, short
from frdet.datasets.base import DetDataset
from frdet.datasets.formats.sizes import image_records
from frdet.datasets.locating import examples, image_files
from frdet.progress import track
from frdet.registry import DATASETS

#: Names that a part has in files: Darknet calls ``val`` otherwise.
PART_KEYS = {'train': ('train',), 'val': ('val', 'valid'), 'test': ('test',)}
NAMES_FILES = ('classes.txt', 'obj.names', 'classes.names')  # in a folder of labels, or beside it
FAR = 1.0  # fractions this far outside an image are pixels; tools round to a little outside


class Source(NamedTuple):
    """What is to be read.

    Attributes:
        classes: names by their number in the labels.
        images: paths of images by part.
        absent: parts that are named and are not there, with the reason.
        labels: folder of all label files; None if they lie beside the images, or in ``labels`` beside ``images``.
        keypoints: numbers after a box that are no polygon.
    """

    classes: dict[int, str]
    images: dict[str, list[str]]
    absent: dict[str, str]
    labels: str | None = None
    keypoints: int = 0


@DATASETS.register_module()
class YoloDataset(DetDataset):
    """Images and boxes of YOLO's text files; classes in the order of their numbers, which are their category ids.

    ``ann_file`` is one of these:

    - ``data.yaml`` of Ultralytics or Roboflow. ``train``, ``val`` and ``test`` are folders, lists of folders, or
      ``.txt`` lists of images; they are relative to ``path``, or to the folder of the file, where ``../`` in front may
      be wrong.
    - ``obj.data`` of Darknet, with ``train``, ``valid`` and ``names``.
    - a folder of label files with ``classes.txt``, for the images of the same names below the image folder. Without
      that file, ``metainfo.classes`` are the classes in the order of their numbers.

    The label file of an image lies beside it, or where ``labels`` replaces the last folder ``images`` of its path. An
    image without one, or with an empty one, is a background image. A line is ``class x y width height``, the centre and
    the size as fractions of the upright image. ``class x1 y1 x2 y2 x3 y3 ...`` is a polygon, and becomes the box around
    it. A sixth number is refused, because it is the confidence of a detection, which is no label.

    Args:
        part: ``train``, ``val`` or ``test`` of ``data.yaml`` or ``obj.data``; None reads all of them.
        kwargs: as of ``DetDataset``. The id of an image is its path below the image folder.
    """

    has_parts = True

    def read(self) -> Annotations:
        """Read the label files."""
        given = self._metainfo.get('classes') or ()
        source = read_source(self.ann_file, self.data_root, self.data_prefix['img'], given)
        if self.part is not None and self.part not in source.images:
            known = f'it has no part {self.part!r}, but {", ".join(source.images) or "none"}'
            raise ValueError(source.absent.get(self.part, known))
        if self.part is None:
            self.notes += [f'{self.ann_file}: {part} is left out, because {why}' for part, why in source.absent.items()]
        parts = source.images.values() if self.part is None else [source.images[self.part]]
        paths = list(dict.fromkeys(path for images in parts for path in images))
        if not paths:
            raise ValueError(f'it has no image{"".join(f"; {why}" for why in source.absent.values())}')
        folder = self.data_prefix['img'] or '.'
        names = [_below(path, folder) for path in paths]
        records = image_records(self, names)
        files = [
            label_file(os.path.join(folder, image['file_name']), folder, source.labels) for image in records.values()
        ]
        numbers, places = array('d'), array('q')
        have_file = False
        for place, file in enumerate(track(files, 'Reading labels')):
            found: list[list[float]] | None = []
            with self.one_of_many():
                found = read_labels(file, source.keypoints)
            have_file = have_file or found is not None
            numbers.extend(chain.from_iterable(found or ()))
            places.extend([place] * len(found or ()))
        if not have_file:
            raise ValueError(f'none of its {len(files)} images has a label file; the first was expected at {files[0]}')
        table, index = np.frombuffer(numbers, np.float64).reshape(-1, 5), np.frombuffer(places, np.int64)
        place_of = {number: place for place, number in enumerate(source.classes)}
        if unknown := sorted({int(number) for number in np.unique(table[:, 0])} - set(place_of)):
            raise ValueError(f'labels have the class {unknown[0]}, and it names {len(place_of)} classes from 0')
        sizes = np.array([(image['width'], image['height']) for image in records.values()], dtype=np.float64)
        centre, size = (columns * sizes[index] for columns in (table[:, 1:3], table[:, 3:]))
        return Annotations(
            images=list(records.values()),
            categories={name: number for number, name in source.classes.items()},
            image_index=index,
            category_index=np.array([place_of[int(number)] for number in table[:, 0].tolist()], dtype=np.int64),
            xywh=np.concatenate([centre - size / 2, size], axis=1),
        )


def read_source(ann_file: str, root: str, images: str, classes: Sequence[str]) -> Source:
    """What ``ann_file`` of a ``YoloDataset`` names.

    Raises:
        ValueError: it cannot be read, or names no classes, or folders that do not exist.
    """
    path = Path(ann_file)
    if path.is_dir():
        return Source(
            _numbered(_names_beside(path, root) or classes, ann_file), {'all': _in_folder(images)}, {}, ann_file
        )
    content = _darknet(path) if path.suffix == '.data' else _yaml(path)
    base = content.get('path')
    folders = [path.parent / base] if isinstance(base, str) and (path.parent / base).is_dir() else []
    folders.append(path.parent)
    limit = Path(os.path.abspath(root or path.parent)).parent
    found: dict[str, list[str]] = {}
    absent: dict[str, str] = {}
    for part, keys in PART_KEYS.items():
        value = next((content[key] for key in keys if content.get(key)), None)
        try:
            values = value if isinstance(value, list) else [value] if value is not None else []
            listed = [image for one in values for image in _images(one, folders, limit, f'{path.name}: {part}')]
        except ValueError as error:
            absent[part] = str(error)
        else:
            found |= {part: listed} if listed else {}
    if not found and not absent:
        raise ValueError('it has none of train, val and test')
    names = content.get('names')
    if isinstance(names, str):
        names = _lines(_existing(names, folders, limit, f'{path.name}: names'))
    keypoints = prod(content['kpt_shape']) if content.get('kpt_shape') else 0
    return Source(_numbered(names or classes, ann_file), found, absent, None, keypoints)


def _numbered(names: Any, ann_file: str) -> dict[int, str]:
    """Class names by number, in the order of the numbers."""
    if not names:
        raise ValueError(
            f'it names no classes: add names to it, or classes.txt with one name in a line to {Path(ann_file).parent}'
        )
    try:
        pairs = list(names.items()) if isinstance(names, dict) else list(enumerate(names))
        if not all(isinstance(name, (str, int, float)) for _, name in pairs):
            raise TypeError
        found = {int(number): str(name).strip() for number, name in sorted(pairs, key=lambda pair: int(pair[0]))}
    except (TypeError, ValueError):
        raise ValueError(f'names is {short(names)}: expected a list of names, or names by number') from None
    if len(set(found.values())) < len(pairs) or not all(found.values()):
        raise ValueError(f'names is {short(names)}: expected a different name for each class')
    return found


def _names_beside(folder: Path, root: str) -> list[str]:
    places = (folder, folder.parent, Path(root or '.'))
    files = (place / name for place in places for name in NAMES_FILES)
    return next((_lines(path) for path in files if path.is_file()), [])


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8-sig'))
    except yaml.constructor.ConstructorError as error:
        raise ValueError(f'it has a Python object ({error.problem}), which could run code: remove it') from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f'it is no YAML ({" ".join(str(error).split())[:120]})') from None
    if not isinstance(content, dict):
        raise ValueError(f'it holds {short(content)}: expected train, val and names')
    return content


def _darknet(path: Path) -> dict[str, str]:
    pairs = (line.partition('=') for line in _lines(path) if not line.startswith('#'))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _images(value: Any, folders: list[Path], limit: Path, where: str) -> list[str]:
    """The paths of the images of a folder or list."""
    if not isinstance(value, str):
        raise ValueError(f'{where} is {short(value)}: expected a folder, or a .txt list of images')
    path = _existing(value, folders, limit, where)
    if path.is_dir():
        return _in_folder(str(path))
    lines = [line for line in _lines(path) if line]
    places = [path.parent, *folders]
    images = [next(_candidates(line, places, os.path.isfile), os.path.join(path.parent, line)) for line in lines]
    if missing := [line for line, image in zip(lines, images, strict=True) if not os.path.isfile(image)]:
        raise ValueError(f'{len(missing)} of {len(lines)} images of {path} are not there: {examples(missing)}')
    return images


def _existing(value: str, folders: list[Path], limit: Path, where: str) -> Path:
    found = next(_candidates(value, folders, os.path.exists), None)
    if found is None:
        raise ValueError(f'{where} is {value}, which is not in {folders[-1]}: correct the path')
    if not os.path.isabs(value) and not Path(os.path.abspath(found)).is_relative_to(limit):
        raise ValueError(f'{where} is {value}, which leads out of {limit}: give an absolute path if it is meant')
    return Path(found)


def _candidates(value: str, folders: list[Path], exists: Any) -> Iterator[str]:
    """Paths that ``value`` may mean: below a folder; or without ../ or data/ in front, which Roboflow and Darknet write
    for another place of the file."""
    value = value.replace('\\', '/')
    plain = value
    while plain.startswith(('../', './', 'data/')):
        plain = plain.partition('/')[2]
    return (path for one in (value, plain) for folder in folders if exists(path := os.path.join(folder, one)))


def _in_folder(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in image_files(folder)]


def _below(path: str, folder: str) -> str:
    """``path`` relative to ``folder`` if it is in it, or else absolute."""
    path, folder = os.path.abspath(path), os.path.abspath(folder)
    return os.path.relpath(path, folder) if path.startswith(folder.rstrip('/') + '/') else path


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f'{path} is no text in UTF-8: save it as UTF-8') from None


def label_file(image: str, folder: str, labels: str | None) -> str:
    """The path of the label file of ``image``, which need not exist."""
    stem = os.path.splitext(image)[0]
    if labels is not None:
        return os.path.join(labels, f'{os.path.relpath(stem, folder)}.txt')
    before, images, after = stem.rpartition('/images/')
    beside = f'{stem}.txt'
    return f'{before}/labels/{after}.txt' if images and not os.path.isfile(beside) else beside


def read_labels(path: str, keypoints: int = 0) -> list[list[float]] | None:
    """Rows ``class, x, y, width, height`` of a label file; None if there is no file.

    Raises:
        ValueError: a line has other numbers. The message names file and line.
    """
    try:
        with open(path, encoding='utf-8-sig') as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ValueError(f'{path} is no text') from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if fields := line.split():
            try:
                rows.append(_row([float(field) for field in fields], keypoints))
            except ValueError as error:
                reason = str(error) if 'expected' in str(error) else 'expected numbers, class x y width height'
                raise ValueError(f'{path}, line {number}: {short(line)}: {reason}') from None
    return rows


def _row(numbers: list[float], keypoints: int) -> list[float]:
    kind, *rest = numbers
    if keypoints and len(rest) == 4 + keypoints:
        rest = rest[:4]
    if len(rest) == 5:
        raise ValueError('a sixth number is the confidence of a detection; expected labels, class x y width height')
    if not (len(rest) == 4 or (len(rest) >= 6 and len(rest) % 2 == 0)) or kind < 0 or kind % 1:
        raise ValueError('expected class x y width height, or class and the points of a polygon')
    if not all(-FAR <= number <= 1 + FAR for number in rest):
        raise ValueError('expected fractions of the image from 0 to 1, not pixels')
    if len(rest) > 4:
        left, top, right, bottom = min(rest[::2]), min(rest[1::2]), max(rest[::2]), max(rest[1::2])
        rest = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    return [kind, *rest]
