"""Looking at a folder of a data set: what is in it, which split a name means, where the images are."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from frdet.datasets.locating import examples, locate
from frdet.datasets.near_files import ENDINGS
from frdet.errors import DataError

MOST_FOLDERS, DEEPEST = 1000, 4  # folders that are looked into
MOST_NAMES = 2000  # names of a kind that are kept of each folder
SAMPLE = 20  # images that tell their folder
#: Words in the names of files and folders, and the split that they mean.
SPLITS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test'}


class Tree:
    """The names below ``root`` without hidden ones.

    Attributes:
        folders: path of each folder relative to ``root`` ('' for itself) -> ending in lower case -> names of files.
    """

    def __init__(self, root: Path):
        self.root = root
        self.folders: dict[str, dict[str, list[str]]] = {}
        waiting = ['']
        while waiting and len(self.folders) < MOST_FOLDERS:
            folder = waiting.pop(0)
            endings = self.folders.setdefault(folder, {})
            with os.scandir(root / folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith('.'):
                        continue
                    if not entry.is_dir():
                        names = endings.setdefault(Path(entry.name.lower().removesuffix('.gz')).suffix, [])
                        names += [entry.name] if len(names) < MOST_NAMES else []
                    elif folder.count('/') < DEEPEST:
                        waiting.append(os.path.join(folder, entry.name))

    def files(self, *endings: str) -> list[str]:
        """Paths of the files with one of ``endings``, relative to ``root``."""
        return [
            os.path.join(folder, name)
            for folder, by_ending in self.folders.items()
            for ending in endings
            for name in by_ending.get(ending, ())
        ]

    def folders_with(self, *endings: str) -> list[str]:
        """The folders with files that have one of ``endings``."""
        return [folder for folder, by_ending in self.folders.items() if by_ending.keys() & set(endings)]


def split_of(path: str) -> str | None:
    """The split that a relative path names: in its last part, or else in the folder before it, and so on."""
    for part in reversed(path.lower().split('/')):
        words = re.findall('[a-z]+', part)
        if splits := {SPLITS[word] for word in words if word in SPLITS}:
            return splits.pop() if len(splits) == 1 else None
    return None


def by_split(paths: Iterable[str]) -> dict[str | None, list[str]]:
    """``paths`` by the split that they name. Train comes first, then val, test and None."""
    found: dict[str | None, list[str]] = {}
    for path in paths:
        found.setdefault(split_of(path), []).append(path)
    order = ['train', 'val', 'test', None]
    return {split: found[split] for split in order if split in found}


def find_images(tree: Tree, names: Sequence[str], source: str, split: str | None = None) -> tuple[str, list[str]]:
    """The folder of the images ``names`` of the file or folder ``source``, relative to the root, and notes.

    Where several folders have as many of the names, one of ``split`` is taken, then one near to ``source``.

    Raises:
        DataError: no folder has one of the images.
    """
    sample = names[:: len(names) // SAMPLE + 1]

    def merit(folder: str) -> tuple:
        located = locate(sample, tree.root / folder)
        near = len(located.replaced)
        there = len(sample) - len(located.missing) - near
        shared = len(os.path.commonpath([f'/{folder}', f'/{source}']))
        return there, near, split_of(folder) == split, -len(''.join(located.names)), shared

    folder = max(tree.folders, key=merit)
    located = locate(names, tree.root / folder)
    if len(located.missing) == len(set(names)):
        count = len(tree.files(*ENDINGS))
        have = f'which has other images: {examples(tree.files(*ENDINGS))}' if count else 'which has no image'
        raise DataError(
            f'{tree.root / source} labels {len(names)} images, such as {examples(names[:1])}, and none of them is in '
            f'{tree.root}, {have}. Put the images there'
        )
    return folder, located.messages(source, tree.root / folder)
