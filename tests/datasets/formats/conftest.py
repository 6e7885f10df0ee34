"""Small files of labelling tools, written by the tests."""

from pathlib import Path

import pytest
from PIL import Image

from frdet.datasets.base import DetDataset

WIDTH, HEIGHT = 80, 60


class Folder:
    """A folder to fill: ``write`` makes text files, ``draw`` images of 80 x 60 pixels."""

    def __init__(self, root: Path):
        self.root = root

    def write(self, name: str, text: str | bytes = '') -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def draw(self, *names: str) -> None:
        for name in names:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (WIDTH, HEIGHT)).save(self.root / name)

    def read(self, kind: type[DetDataset], ann_file: str = '.', img: str = '', **kwargs):
        """The annotations, and the notes."""
        dataset = self.dataset(kind, ann_file, img, **kwargs)
        return dataset.annotations(), dataset.notes

    def dataset(self, kind: type[DetDataset], ann_file: str = '.', img: str = '', **kwargs) -> DetDataset:
        kwargs = {'lazy_init': True, **kwargs}
        return kind(data_root=str(self.root), ann_file=ann_file, data_prefix=dict(img=img), **kwargs)


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)
