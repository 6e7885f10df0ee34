"""Pascal VOC: an XML file for every image."""

import math
import os
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np

from frdet.datasets.annotations import Annotations
from frdet.datasets.base import DetDataset
from frdet.datasets.formats.sizes import image_records
from frdet.datasets.locating import examples, files_below, image_files
from frdet.errors import ConfigError
from frdet.progress import track
from frdet.registry import DATASETS

DIFFICULT = ('ignored', 'kept', 'dropped')


class Image(NamedTuple):
    """The content of an XML file: K objects. ``size`` is (height, width), or None if it is not stated."""

    file_name: str
    size: tuple[int, int] | None
    classes: list[str]
    boxes: list[list[float]]
    difficult: list[bool]


@DATASETS.register_module()
class VocDataset(DetDataset):
    """Images and boxes of Pascal VOC's XML files; classes in the order of their names.

    ``ann_file`` is a folder; files in folders below it count, too. An XML file without an object is a background image.
    An image without an XML file is not in the data set. The image of ``a/1.xml`` is ``a/1.jpg`` or ``1.jpg`` below the
    image folder, with any ending; the ``filename`` in the XML file decides between several, and counts where there is
    none, because it is not corrected when files are renamed. The id of an image is its path below the image folder.

    VOC counts pixels from 1, and the last pixel belongs to the box: ``xmin=1, xmax=10`` are the first ten columns,
    which are 0 to 10 in frdet. Some tools count from 0 as frdet does. Reading these as VOC moves the left and upper
    sides by one pixel outwards, and with it the centre by half a pixel. A note is logged if a box begins at 0.

    ``truncated`` objects are objects like all others. The parts of an object are not read.

    Args:
        part: reads the names of ``ImageSets/Main/<part>.txt`` only, which lies beside ``ann_file`` or in ``data_root``.
        one_based: False for files whose pixels count from 0.
        difficult: ``'ignored'`` objects count neither as objects nor as background, as in VOC's evaluation; ``'kept'``
            makes them objects, ``'dropped'`` background.
        kwargs: as of ``DetDataset``.
    """

    has_parts = True

    def __init__(
        self, *, one_based: bool = True, difficult: Literal['ignored', 'kept', 'dropped'] = 'ignored', **kwargs: Any
    ):
        if difficult not in DIFFICULT:
            raise ConfigError(f'difficult is {difficult!r}: expected {", ".join(DIFFICULT)}')
        self.one_based, self.difficult = one_based, difficult
        super().__init__(**kwargs)

    def read(self) -> Annotations:
        """Read the XML files."""
        files: dict[str, Image] = {}
        for stem in track(self._stems(), 'Reading XML files'):
            with self.one_of_many():
                files[stem] = read_image_xml(Path(self.ann_file, f'{stem}.xml'))
        stems, read = list(files), list(files.values())
        names = self._image_names(stems, read)
        sizes = {name: image.size for name, image in zip(names, read, strict=True) if image.size}
        records = image_records(self, names, sizes)
        images = [(records[name], image) for name, image in zip(names, read, strict=True) if name in records]
        objects = [
            (place, name, box, hard)
            for place, (_, image) in enumerate(images)
            for name, box, hard in zip(image.classes, image.boxes, image.difficult, strict=True)
            if not (hard and self.difficult == 'dropped')
        ]
        if not objects:
            raise ValueError(f'its {len(stems)} XML files have no object')
        at_zero = sum(min(box[:2]) < 1 for _, _, box, _ in objects)
        if at_zero and self.one_based:
            self.notes.append(
                f'{self.ann_file}: {at_zero} of {len(objects)} boxes begin at pixel 0, where VOC counts from 1. If the '
                'tool that wrote them counts from 0, set one_based=False: else all boxes are a pixel too large'
            )
        first = int(self.one_based)
        classes = sorted({name for _, name, _, _ in objects})
        label = {name: k for k, name in enumerate(classes)}
        return Annotations(
            images=[record for record, _ in images],
            categories={name: k for k, name in enumerate(classes, start=1)},
            image_index=np.array([place for place, _, _, _ in objects]),
            category_index=np.array([label[name] for _, name, _, _ in objects]),
            boxes=np.array([box for _, _, box, _ in objects]) - [first, first, 0, 0],
            ignored=np.array([hard and self.difficult == 'ignored' for _, _, _, hard in objects]),
        )

    def _stems(self) -> list[str]:
        """Paths of the XML files below ``ann_file``, without their ending."""
        there = [name[:-4] for name in files_below(self.ann_file, ('.xml',))]
        if not there:
            raise ValueError('it has no XML file')
        if self.part is None:
            return there
        listed = self._listed(self.part)
        if missing := sorted(set(listed) - set(there)):
            raise ValueError(
                f'the part {self.part!r} lists {len(missing)} images without XML file: {examples(missing)}'
            )
        return listed

    def _listed(self, part: str) -> list[str]:
        places = [Path(self.ann_file).parent / 'ImageSets/Main', Path(self.data_root or '.') / 'ImageSets/Main']
        file = next((path for place in places if (path := place / f'{part}.txt').is_file()), None)
        if file is None:
            known = sorted({path.stem for place in places for path in place.glob('*.txt')})
            raise ValueError(f'there is no {places[0]}/{part}.txt; known parts: {", ".join(known[:10]) or "none"}')
        lines = file.read_text(encoding='utf-8-sig').splitlines()
        # The files of one class have 1, -1 or 0 after the name. A name may have spaces.
        return list(dict.fromkeys(re.sub(r'\s+-?[01]$', '', line).strip() for line in lines if line.strip()))

    def _image_names(self, stems: list[str], read: list[Image]) -> list[str]:
        """The image of each XML file, by the rule of the class."""
        files = image_files(self.data_prefix['img']) if Path(self.data_prefix['img']).is_dir() else []
        by_stem: dict[str, list[str]] = {}
        for file in files:
            stem = os.path.splitext(file)[0]
            for key in dict.fromkeys((stem, os.path.basename(stem))):
                by_stem.setdefault(key, []).append(file)
        known = {os.path.basename(file) for file in files}
        names, others = [], []
        for stem, image in zip(stems, read, strict=True):
            said = image.file_name.replace('\\', '/').rpartition('/')[2]
            same = by_stem.get(stem) or by_stem.get(os.path.basename(stem)) or []
            chosen = next((file for file in same if os.path.basename(file) == said), None)
            if chosen is None and len(same) == 1:
                chosen = same[0]
                others += [f'{stem}.xml names {said}'] if said in known else []
            names.append(chosen or image.file_name or stem)
        if others:
            self.notes.append(
                f'{self.ann_file}: {len(others)} XML files name another image than the one that is called like them, '
                f'which is read: {examples(others)}'
            )
        return names


def read_image_xml(path: Path) -> Image:
    """The content of an XML file.

    Raises:
        ValueError: it is no XML in VOC's layout, has a document type or entities, or a box is missing or rotated.
    """
    root = _parsed(path)
    if root.tag != 'annotation':
        hint = ': in CVAT, export as Pascal VOC or COCO' if root.tag == 'annotations' else ''
        raise ValueError(f'{path.name} holds <{root.tag}>, expected the <annotation> of Pascal VOC{hint}')
    size = [_number(root, f'size/{side}') for side in ('height', 'width')]
    image = Image(_text(root, 'filename'), None, [], [], [])
    if all(side >= 1 and side % 1 == 0 for side in size):
        image = image._replace(size=(int(size[0]), int(size[1])))
    for number, item in enumerate(root.findall('object'), start=1):
        where = f'{path.name}: object {number}'
        if not (name := _text(item, 'name')):
            raise ValueError(f'{where} has no name')
        if item.find('robndbox') is not None:
            raise ValueError(f'{where} is a rotated box (robndbox): draw upright boxes, xmin, ymin, xmax, ymax')
        box = [_number(item, f'bndbox/{side}') for side in ('xmin', 'ymin', 'xmax', 'ymax')]
        if any(map(math.isnan, box)):
            raise ValueError(f'{where} ({name}) has no bndbox with the numbers xmin, ymin, xmax, ymax')
        image.classes.append(name)
        image.boxes.append(box)
        image.difficult.append(_text(item, 'difficult') not in ('', '0', 'Unspecified'))
    return image


def _parsed(path: Path) -> ElementTree.Element:
    data = path.read_bytes()
    declared = re.match(rb'(?:\xef\xbb\xbf)?\s*<\?xml[^>]*?encoding\s*=\s*["\']([\w.-]+)', data)
    encoding = declared[1].decode() if declared else 'utf-8'
    if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
        encoding = 'utf-16'
    try:
        text = data.decode(encoding).lstrip('\ufeff \t\r\n')
    except (LookupError, UnicodeDecodeError):
        raise ValueError(f'{path.name} is no text in {encoding}, as it says: save it as UTF-8') from None
    # Entities may grow to gigabytes or name other files. No tool that draws boxes writes them.
    if '<!DOCTYPE' in text or '<!ENTITY' in text:
        raise ValueError(f'{path.name} has a document type (DOCTYPE) or entities, which are not read: remove them')
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f'{path.name} is no XML ({error})') from None


def _text(item: ElementTree.Element, name: str) -> str:
    return (item.findtext(name) or '').strip()


def _number(item: ElementTree.Element, name: str) -> float:
    """The number at ``name``, NaN if there is none."""
    try:
        number = float(_text(item, name))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
