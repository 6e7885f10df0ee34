import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from frdet.datasets.shapes import write_shapes
from frdet.errors import ConfigError
from frdet.visualization import browse_dataset


@pytest.fixture
def cfg(tmp_path):
    root = write_shapes(tmp_path / 'shapes', num_train=5, num_val=2, image_size=(40, 64))
    pipeline = [
        dict(type='LoadImage'),
        dict(type='Resize', scale=(80, 120)),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]
    loaders = {
        f'{split}_dataloader': dict(
            dataset=dict(
                type='CocoDataset',
                data_root=str(root),
                ann_file=f'annotations/instances_{split}2017.json',
                data_prefix=dict(img=f'{split}2017/'),
                pipeline=pipeline,
            )
        )
        for split in ('train', 'val')
    }
    return Config({**loaders, 'test_dataloader': None})


def test_pictures_of_the_pipeline(cfg, tmp_path):
    paths = browse_dataset(cfg, tmp_path / 'out', num=3)
    assert [path.name for path in paths] == ['1.jpg', '2.jpg', '3.jpg', 'sheet.jpg']
    with Image.open(paths[0]) as picture:
        assert picture.size == (720, 480)  # 80x120, enlarged by 6
    assert all(np.asarray(Image.open(path)).std() > 5 for path in paths)


def test_no_more_than_there_are(cfg, tmp_path):
    assert len(browse_dataset(cfg, tmp_path / 'out', split='val', num=50)) == 3


def test_the_seed_decides_what_is_random(cfg, tmp_path):
    def pictures(name, seed):
        return [path.read_bytes() for path in browse_dataset(cfg, tmp_path / name, num=5, seed=seed)]

    assert pictures('a', 0) == pictures('b', 0)
    assert pictures('c', 1) != pictures('a', 0)


def test_wrong_arguments(cfg, tmp_path):
    with pytest.raises(ConfigError, match='no test_dataloader'):
        browse_dataset(cfg, tmp_path / 'out', split='test')
    with pytest.raises(ConfigError, match='expected at least 1'):
        browse_dataset(cfg, tmp_path / 'out', num=0)
    assert not (tmp_path / 'out').exists()
