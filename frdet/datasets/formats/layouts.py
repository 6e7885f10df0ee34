"""The layouts of each format in a folder: what shows that it is there, and the arguments of its reader."""

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from frdet.datasets.coco_file import load_sections, read_json
from frdet.datasets.formats.csv import read_table, recognise_table
from frdet.datasets.formats.folders import Tree, by_split, find_images, split_of, unlisted
from frdet.datasets.formats.yolo import NAMES_FILES, label_file, read_source
from frdet.datasets.locating import examples
from frdet.datasets.mending import foreign
from frdet.datasets.near_files import ENDINGS
from frdet.errors import DataError

ORDER = ('train', 'val', 'test')
PEEK = 1 << 20  # bytes of a file that tell its format
FEW = 5  # JSON files that may be of a tool
LOOKED_AT = 500  # XML files that tell whether pixels count from 0


class Layout(NamedTuple):
    """Arguments of a reader beside ``type`` and ``data_root`` by split, or for ``all`` images; and notes."""

    parts: dict[str, dict[str, Any]]
    notes: list[str]


def coco_files(tree: Tree) -> list[str]:
    """JSON files with COCO's three lists."""
    return [name for name in tree.files('.json') if _is_coco(tree.root / name)]


def _is_coco(path: Path) -> bool:
    if path.suffix == '.gz':
        return True
    with open(path, 'rb') as file:
        start = file.read(PEEK).replace(b'\0', b'')  # of UTF-16
    return bool(re.search(rb'"(images|annotations)"\s*:\s*\[', start))


def coco_layout(tree: Tree, files: list[str]) -> Layout:
    """One file for each split, by its name or folder."""
    chosen: dict[str, str] = {}
    notes = []
    splits = by_split(files)
    if len(splits) > 1 and None in splits:
        notes.append(f'{examples(splits.pop(None))}: left out, because the name tells no split')
    for split, several in splits.items():
        boxes = [name for name in several if os.path.basename(name).startswith('instances')]
        several = boxes if len(boxes) == 1 else several
        if len(several) > 1:
            raise DataError(
                f'{tree.root} holds {len(several)} COCO files for {split or "one data set"}, {examples(several)}: give '
                'the file that you want'
            )
        chosen[split or 'all'] = several[0]
    parts, listed = {}, []
    for split, name in chosen.items():
        sections = load_sections(tree.root / name)
        names = [
            str(item['file_name']) for item in sections['images'] if isinstance(item, dict) and item.get('file_name')
        ]
        if not names:
            raise DataError(f'{tree.root / name} lists no image')
        folder, located = find_images(tree, names, name, None if split == 'all' else split)
        parts[split] = dict(ann_file=name, data_prefix=dict(img=folder))
        notes += located.messages(name, tree.root / folder)
        listed.append((folder, located))
    return Layout(parts, notes + unlisted(tree, listed))


def voc_folders(tree: Tree) -> list[str]:
    """Folders of XML files whose first is VOC's, or looks like one of CVAT, which the reader names."""
    return [folder for folder in tree.folders_with('.xml') if _is_voc(tree, folder)]


def _is_voc(tree: Tree, folder: str) -> bool:
    with open(tree.root / folder / tree.folders[folder]['.xml'][0], 'rb') as file:
        return b'<annotation' in file.read(PEEK).replace(b'\0', b'')


def voc_layout(tree: Tree, folders: list[str]) -> Layout:
    """Lists of a split below ImageSets, or a folder for each split, or all XML files."""
    together = os.path.commonpath(folders) if all(folders) else ''
    splits = by_split(folders)
    lists = {
        split: Path(name).stem
        for name in tree.files('.txt')
        if name.endswith(f'ImageSets/Main/{Path(name).name}') and (split := split_of(Path(name).name))
    }
    args: dict[str, dict[str, Any]] = {'all': dict(ann_file=together)}
    if len(lists) > 1:
        args = {
            split: dict(ann_file=together, part=lists[split]) for split in ('train', 'val', 'test') if split in lists
        }
    elif None not in splits and len(splits) > 1:
        args = {str(split): dict(ann_file=os.path.commonpath(several)) for split, several in splits.items()}
    zero = _counts_from_zero(tree, folders)
    notes = [f'Boxes begin at pixel 0, for example in {zero}, so pixels are taken to count from 0'] if zero else []
    files, listed = tree.files('.xml'), []
    for split, given in args.items():
        inside = [name for name in files if not given['ann_file'] or name.startswith(f'{given["ann_file"]}/')]
        stems = [os.path.relpath(name[: -len('.xml')], given['ann_file'] or '.') for name in inside]
        listed.append(find_images(tree, stems, given['ann_file'], None if split == 'all' else split))
        folder = listed[-1][0]
        given.update(
            ann_file=given['ann_file'] or '.', data_prefix=dict(img=folder), **(dict(one_based=False) if zero else {})
        )
    return Layout(args, notes + unlisted(tree, listed))


def _counts_from_zero(tree: Tree, folders: list[str]) -> str | None:
    """The first XML file with a box that begins at 0."""
    files = [os.path.join(folder, name) for folder in folders for name in tree.folders[folder]['.xml']]
    for name in files[:: len(files) // LOOKED_AT + 1]:
        if re.search(rb'<[xy]min>\s*0(\.0*)?\s*</', (tree.root / name).read_bytes()):
            return name
    return None


def yolo_files(tree: Tree) -> list[str]:
    """``data.yaml``, ``obj.data``; or, without these, the folders of label files."""
    named = [name for name in tree.files('.yaml', '.yml', '.data') if _is_yolo(tree.root / name)]
    return named or [folder for folder in tree.folders_with('.txt') if _has_labels(tree, folder)]


def _is_yolo(path: Path) -> bool:
    with open(path, 'rb') as file:
        return bool(re.search(rb'^\s*["\']?(train|val|valid)["\']?\s*[:=]', file.read(PEEK), re.M))


def _is_label(path: Path) -> bool:
    """Whether a text file begins with the numbers of a box, unlike lists of names and of images."""
    with open(path, 'rb') as file:
        line = file.readline(PEEK).split()
    return len(line) >= 5 and all(re.fullmatch(rb'-?[\d.]+(e-?\d+)?', word) for word in line)


def _has_labels(tree: Tree, folder: str) -> bool:
    return any(_is_label(tree.root / folder / name) for name in tree.folders[folder]['.txt'][:LOOKED_AT])


def yolo_layout(tree: Tree, files: list[str]) -> Layout:
    """The parts that a YAML or Darknet file names and that are there; or a folder of labels for each split."""
    if files[0].endswith(('.yaml', '.yml', '.data')):
        if len(files) > 1:
            raise DataError(f'{tree.root} holds {len(files)} files for YOLO, {examples(files)}: give one of them')
        return _yolo_parts(tree, files[0])
    parts = {}
    notes: list[str] = []
    splits = by_split(files)
    if None in splits or len(splits) == 1:
        splits = {None: files}
    for split, folders in splits.items():
        labels = os.path.commonpath(folders) if all(folders) else ''
        names = [name for name in tree.files('.txt') if os.path.dirname(name).startswith(labels)]
        names = [name for name in names if os.path.basename(name) not in NAMES_FILES]
        stems = [os.path.relpath(name[: -len('.txt')], labels or '.') for name in names]
        folder, located = find_images(tree, stems, labels, split)
        parts[split or 'all'] = dict(ann_file=labels or '.', data_prefix=dict(img=folder))
        notes += _without_image(tree, [os.path.join(labels, f'{stem}.txt') for stem in located.missing])
    return Layout(parts, notes)


def _without_image(tree: Tree, files: list[str]) -> list[str]:
    labels = [name for name in files if _is_label(tree.root / name)]
    return [f'{len(labels)} label files have no image: {examples(labels)}'] if labels else []


def _yolo_parts(tree: Tree, name: str) -> Layout:
    path = str(tree.root / name)
    try:
        source = read_source(path, str(tree.root), str(tree.root), ())
    except ValueError as error:
        raise DataError(f'{path}: {error}') from None
    notes = [f'The part {part} is left out: {reason}' for part, reason in source.absent.items()]
    images = {part: set(paths) for part, paths in source.images.items() if paths}
    if not images:
        raise DataError(f'{path} names no image that is there. {" ".join(notes)}')
    labels = {os.path.relpath(label_file(image, '', None), tree.root) for paths in images.values() for image in paths}
    folders = {os.path.dirname(label) for label in labels}
    others = [one for one in tree.files('.txt') if os.path.dirname(one) in folders and one not in labels]
    notes += _without_image(tree, others)
    if 'train' in images and images.get('val') == images['train']:
        notes.append(f'train and val of {name} are the same images: val is left out')
        del images['val']
    if len(images) == 1:
        (part,) = images
        notes += [f'{name} has only the part {part}'] if source.absent or part != 'train' else []
        return Layout({'all': dict(ann_file=name, part=part, data_prefix=dict(img=''))}, notes)
    return Layout({part: dict(ann_file=name, part=part, data_prefix=dict(img='')) for part in images}, notes)


def csv_files(tree: Tree) -> list[str]:
    """Tables with a box in every line."""
    return [name for name in tree.files('.csv', '.tsv') if _is_table(tree.root / name)]


def _is_table(path: Path) -> bool:
    try:
        recognise_table(path)
    except ValueError:
        return False
    return True


def csv_layout(tree: Tree, files: list[str]) -> Layout:
    """A table for each split, or one with a column of the splits, or one of all images."""
    parts: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    listed = []
    for split, several in by_split(files).items():
        if len(several) > 1:
            raise DataError(f'{tree.root} holds {len(several)} tables, {examples(several)}: give the one that you want')
        path = tree.root / several[0]
        try:
            layout = recognise_table(path)
            table = read_table(path, layout, on_mistake=str)  # reading the boxes refuses what is wrong
            if not table.images:
                read_table(path, layout)
        except ValueError as error:
            raise DataError(f'{path}: {error}') from None
        if not table.images:
            raise DataError(f'{path} has no image')
        folder, located = find_images(tree, list(table.images), several[0], split)
        listed.append((folder, located))
        own = table.parts if len(files) == 1 and len(table.parts) > 1 else []
        args = dict(ann_file=several[0], data_prefix=dict(img=folder))
        parts |= {part: {**args, 'part': part} for part in own} or {split or 'all': args}
        notes += located.messages(several[0], tree.root / folder)
    return Layout(parts, notes + unlisted(tree, listed))


def no_labels(tree: Tree) -> Layout:
    """All images of a folder without labels.

    Raises:
        DataError: there is no image, or labels in a tool's own JSON; the message says what is there.
    """
    for name in tree.files('.json')[:FEW]:
        words = ''
        with suppress(DataError):  # it is some other file
            words = foreign(read_json(tree.root / name))
        if words:
            raise DataError(f'{tree.root / name} holds {words}')
    if not tree.files(*ENDINGS):
        counts = Counter(
            {end or 'no ending': len(names) for ends in tree.folders.values() for end, names in ends.items()}
        )
        seen = ', '.join(f'{count} with {ending}' for ending, count in counts.most_common(5)) or 'it is empty'
        raise DataError(
            f'{tree.root} has no image and no labels that are known ({seen}): expected images with COCO JSON, Pascal '
            'VOC XML, YOLO text or CSV'
        )
    return Layout(
        {'all': dict(ann_file='', data_prefix=dict(img=''))}, ['No labels were found: all images are background images']
    )
