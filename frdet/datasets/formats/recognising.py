"""What a folder or file of labelled images is, and which arguments read it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from frdet.datasets.formats.folders import Tree
from frdet.datasets.formats.layouts import (
    Layout,
    coco_files,
    coco_layout,
    csv_files,
    csv_layout,
    no_labels,
    voc_folders,
    voc_layout,
    yolo_files,
    yolo_layout,
)
from frdet.datasets.locating import examples
from frdet.errors import DataError


class Found(NamedTuple):
    """A data set on disk.

    Attributes:
        format: in words, such as ``Pascal VOC XML``.
        reader: registered name of the data set that reads it.
        root: its ``data_root``.
        parts: the other arguments of the reader, for the splits ``train``, ``val`` and ``test`` that the data have;
            or for ``all`` images if they are not divided.
        notes: sentences on what was noticed.
    """

    format: str
    reader: str
    root: str
    parts: dict[str, dict[str, Any]]
    notes: list[str]


class Kind(NamedTuple):
    """A format: its reader, the files or folders that show it, and the arguments that read these."""

    format: str
    reader: str
    evidence: Callable[[Tree], list[str]]
    layout: Callable[[Tree, list[str]], Layout]


KINDS = (
    Kind('COCO JSON', 'CocoDataset', coco_files, coco_layout),
    Kind('Pascal VOC XML', 'VocDataset', voc_folders, voc_layout),
    Kind('YOLO text', 'YoloDataset', yolo_files, yolo_layout),
    Kind('CSV', 'CsvDataset', csv_files, csv_layout),
)


def recognise(path: str | Path) -> Found:
    """Find out what is in a folder, or what a file is. COCO's files are read, the other ones looked into.

    Raises:
        DataError: there is nothing, nothing known, more than one format, or labels whose images are not there.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f'{path} does not exist: expected a folder of labelled images, or a file of their labels')
    if path.is_file():
        return _of_file(path)
    tree = Tree(path)
    seen = [(kind, files) for kind in KINDS if (files := kind.evidence(tree))]
    if len(seen) > 1:
        said = ' and '.join(f'{kind.format} ({examples(files)})' for kind, files in seen)
        raise DataError(f'{path} holds {said}: give the folder or the file of one of them')
    for kind, files in seen:
        return _found(kind, tree, files)
    return Found('images without labels', 'ImageFolder', str(path), *no_labels(tree))


def _found(kind: Kind, tree: Tree, files: list[str]) -> Found:
    parts, notes = kind.layout(tree, files)
    if len(parts) == 1:
        parts = {'all': next(iter(parts.values()))}
    return Found(kind.format, kind.reader, str(tree.root), parts, notes)


def _of_file(path: Path) -> Found:
    """The images are searched in the folder of the file, then beside this folder, as for ``annotations/a.json``."""
    refusal: DataError | None = None
    for root in dict.fromkeys((path.absolute().parent, path.absolute().parents[1])):
        tree, name = Tree(root), os.path.relpath(path, root)
        tree.folders.setdefault(os.path.dirname(name), {}).setdefault(path.suffix.lower(), [])
        kind = next((kind for kind in KINDS if name in kind.evidence(tree)), None)
        if kind is None:
            break
        try:
            return _found(kind, tree, [name])
        except DataError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    hint = ': give the folder of the XML files' if path.suffix.lower() == '.xml' else ''
    raise DataError(f'{path} is no COCO JSON, no data.yaml or obj.data of YOLO and no table of boxes{hint}')
