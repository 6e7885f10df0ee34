import pytest

from frdet.datasets.shapes import CLASSES, ShapesDataset, write_shapes
from frdet.datasets.shapes import dataset as module
from frdet.errors import DataError


def build(root):
    return ShapesDataset(
        data_root=str(root), ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/')
    )


def test_draws_itself_once(tmp_path, monkeypatch):
    calls = []

    def few(root):
        calls.append(root)
        return write_shapes(root, num_train=3, num_val=2, image_size=(40, 48))

    monkeypatch.setattr(module, 'write_shapes', few)
    for _ in range(2):
        dataset = build(tmp_path / 'shapes')
        assert len(dataset) == 3
        assert dataset.metainfo['classes'] == CLASSES
    assert calls == [str(tmp_path / 'shapes')]


def test_uses_what_was_drawn_otherwise(tmp_path):
    write_shapes(tmp_path / 'shapes', num_train=5, num_val=1, image_size=(40, 48))
    assert len(build(tmp_path / 'shapes')) == 5


def test_does_not_draw_over_something_else(tmp_path):
    (tmp_path / 'mine.txt').touch()
    with pytest.raises(DataError, match='No annotation file'):
        build(tmp_path)
