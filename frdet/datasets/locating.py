"""Finding the image files of a data set: all that there are, or those that the names in its annotations mean."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from frdet.datasets.near_files import ENDINGS, address_in, name_key, stem_key

SHOWN = 3  # examples in a message


class Located(NamedTuple):
    """Names of images after looking at the disk.

    Attributes:
        names: one for each given name: that of the file it means, or the given name if no file is certain.
        replaced: given name -> name of the file, where they differ.
        missing: the given names without a file.
    """

    names: list[str]
    replaced: dict[str, str]
    missing: list[str]

    def messages(self, source: str, folder: str | Path) -> list[str]:
        """A sentence for the log about the names that ``source`` writes otherwise, and one about missing files.

        A name without an ending is not worth a sentence.
        """
        said = []
        others = {given: used for given, used in self.replaced.items() if os.path.splitext(used)[0] != given}
        if others:
            given, used = next(iter(others.items()))
            said.append(
                f'{source}: {len(others)} of {len(self.names)} file names are written otherwise than the files '
                f'in {folder}, which are read. For example, {used} is read for {given}'
            )
        if self.missing:
            said.append(
                f'{source}: {len(self.missing)} of {len(self.names)} images are not in {folder}: '
                f'{examples(self.missing)}'
            )
        return said


def locate(names: Sequence[str], folder: str | Path) -> Located:
    r"""Find the files below ``folder`` that ``names`` mean, because tools write the paths of their own machine.

    A name without a file means the one file whose path ends like it. Upper and lower case, / and \, percent signs, the
    form of Unicode and the ending of an image may differ; leading folders may be more or less. A name stays as it is if
    two files fit, or if the file belongs to another name, too. Each folder is listed once, and no file is opened.
    """
    tree = _Tree(str(folder))
    lost = [name for name in dict.fromkeys(names) if not tree.has(name)]
    near = {name: file for name in lost if (file := tree.near(name))}
    wanted = Counter(near.values()) + Counter(set(names) - set(lost)) if near else Counter()
    replaced = {name: file for name, file in near.items() if wanted[file] == 1}
    missing = [name for name in lost if name not in replaced]
    return Located([replaced.get(name, name) for name in names], replaced, missing)


def examples(names: Iterable[str]) -> str:
    """The first names of a long list, for the end of a sentence."""
    names = list(names)
    return ', '.join(names[:SHOWN]) + (', ...' if len(names) > SHOWN else '')


def image_files(folder: str | Path) -> list[str]:
    """The images in ``folder`` and all folders in it, sorted; paths relative to it. Hidden ones are left out."""
    return files_below(folder, ENDINGS)


def files_below(folder: str | Path, endings: tuple[str, ...]) -> list[str]:
    """The files in ``folder`` and all folders in it whose names have one of ``endings``, as ``image_files``."""
    return sorted(name for name in _walk(str(folder), '') if name.lower().endswith(endings))


def _walk(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith('.'):
                continue
            if entry.is_dir():
                is_circle = entry.is_symlink() and Path(folder).resolve().is_relative_to(Path(entry.path).resolve())
                if not is_circle:
                    yield from _walk(entry.path, f'{prefix}{entry.name}/')
            else:
                yield prefix + entry.name


class _Folder:
    """The names in a folder: of its files and of the folders in it."""

    def __init__(self, path: str):
        self.files: set[str] = set()
        self.folders: list[str] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    self.folders.append(entry.name) if entry.is_dir() else self.files.add(entry.name)
        except (OSError, ValueError):  # no folder, or a name that none can have
            pass

    @cached_property
    def by_key(self) -> dict[str, str]:
        """File by ``name_key``; where several have the same, there is none."""
        return _unique((name_key(name), name) for name in self.files)

    @cached_property
    def by_stem(self) -> dict[str, str]:
        """Image by ``stem_key``."""
        return _unique((stem_key(name), name) for name in self.files if name.lower().endswith(ENDINGS))

    @cached_property
    def folder_by_key(self) -> dict[str, str]:
        return _unique((name_key(name), name) for name in self.folders)

    def file(self, name: str) -> str | None:
        """The one file that is called like ``name``."""
        if name in self.files:
            return name
        return self.by_key.get(name_key(name)) or self.by_stem.get(stem_key(name))


class _Tree:
    """Folders below ``root``, which are listed when they are asked for."""

    def __init__(self, root: str):
        self.root = root
        self.listed: dict[str, _Folder] = {}

    def folder(self, path: str) -> _Folder:
        if path not in self.listed:
            self.listed[path] = _Folder(os.path.join(self.root, path) or '.')
        return self.listed[path]

    def has(self, name: str) -> bool:
        folder, last = os.path.split(name)
        return last in self.folder(folder).files

    def near(self, name: str) -> str | None:
        """The one file whose path ends like ``name``; or else the one of that name a folder further down."""
        if address := address_in(name):
            name = re.split('[?#]', address)[0]
        parts = [part for part in name.replace('\\', '/').split('/') if part.strip('. ')]
        for start in range(len(parts)):
            if found := self._follow(parts[start:]):
                return found
        inner = sorted(self.folder('').folders) if parts else ()
        further = [f'{folder}/{file}' for folder in inner if (file := self.folder(folder).file(parts[-1]))]
        return further[0] if len(further) == 1 else None

    def _follow(self, parts: list[str]) -> str | None:
        path = ''
        for part in parts[:-1]:
            inner = self.folder(path)
            name = part if part in inner.folders else inner.folder_by_key.get(name_key(part))
            if name is None:
                return None
            path = os.path.join(path, name)
        file = self.folder(path).file(parts[-1])
        return file and os.path.join(path, file)


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str | None] = {}
    for key, name in pairs:
        found[key] = None if key in found else name
    return {key: name for key, name in found.items() if name is not None}
