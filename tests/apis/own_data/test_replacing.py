"""A config is used on other data of the same classes, in any format."""

import copy
from pathlib import Path

import pytest
import torch

from frdet.apis import new_experiment, use_data
from frdet.config import load_config
from frdet.errors import ConfigError, DataError
from frdet.registry import DATASETS
from tests import own_data

TRAIN, VAL, TEST = own_data.draw(8), own_data.draw(4, seed=1), own_data.draw(3, seed=2)
CLASSES = ['triangle', 'cross', 'circle', 'square', 'star', 'ring']  # in no order that a reader would choose


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A config for data that are not there any more; its training leaves small images out."""
    monkeypatch.chdir(tmp_path)
    found = load_config(new_experiment(own_data.write(Path('old'), 'coco', dict(train=TRAIN, val=VAL))))
    for part in ('train', 'val', 'test'):
        found[f'{part}_dataloader'].dataset.metainfo.classes = CLASSES
    found.train_dataloader.dataset.filter_cfg = dict(min_size=8)
    Path('old').rename('away')
    return found


def built(cfg, part):
    return DATASETS.build(cfg[f'{part}_dataloader'].dataset)


def test_parts_for_training(cfg):
    before = copy.deepcopy(cfg)
    use_data(cfg, own_data.write(Path('new'), 'voc', dict(train=TRAIN, val=VAL, test=TEST)))
    for part, pictures in (('train', TRAIN), ('val', VAL), ('test', TEST)):
        dataset, old = cfg[f'{part}_dataloader'].dataset, before[f'{part}_dataloader'].dataset
        assert (dataset.type, dataset.data_root) == ('VocDataset', 'new')
        for kept in ('pipeline', 'filter_cfg', 'test_mode'):
            assert dataset.get(kept) == old.get(kept)
        data = built(cfg, part)
        assert list(data.metainfo['classes']) == CLASSES
        labels = [data.get_data_info(i)['gt_labels'].tolist() for i in range(len(data))]
        assert labels == [[CLASSES.index(name) for name, _ in one.objects] for one in pictures]
    assert cfg.model == before.model and cfg.train_dataloader.batch_size == before.train_dataloader.batch_size


def test_a_config_of_masks_reads_the_masks_of_the_data(cfg):
    cfg.train_dataloader.dataset.with_masks = True
    use_data(cfg, own_data.write(Path('new'), 'coco', dict(train=TRAIN, val=VAL)))
    assert cfg.train_dataloader.dataset.with_masks and 'with_masks' not in cfg.val_dataloader.dataset


def test_a_folder_without_parts_is_divided_for_training(cfg):
    use_data(cfg, own_data.write(Path('new'), 'coco', dict(all=TRAIN)))
    sizes = [len(built(cfg, part)) for part in ('train', 'val', 'test')]
    assert sizes[0] + sizes[1] == 8 and sizes[1] == sizes[2] >= 1


@pytest.mark.parametrize(
    ('parts', 'count'),
    [(dict(train=TRAIN, val=VAL, test=TEST), 3), (dict(train=TRAIN, val=VAL), 4), (dict(all=TRAIN), 8)],
    ids=['test', 'val', 'all'],
)
def test_testing_takes_one_part(cfg, parts, count, tmp_path):
    torch.save(
        dict(state_dict=dict(a=torch.zeros(1)), meta=dict(dataset_meta=dict(classes=CLASSES[::-1]))), 'epoch_1.pth'
    )
    before = copy.deepcopy(cfg.train_dataloader)
    use_data(cfg, own_data.write(Path('new'), 'coco', parts), checkpoint='epoch_1.pth')
    data = built(cfg, 'test')
    assert len(data) == count
    assert list(data.metainfo['classes']) == CLASSES[::-1]  # the model's, whatever the config says
    assert cfg.train_dataloader == before


def test_a_wrapper_stays_and_joined_data_are_replaced_together(cfg):
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=inner)
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[cfg.val_dataloader.dataset] * 2)
    cfg.val_evaluator.ann_file = 'old/val/_annotations.coco.json'
    use_data(cfg, own_data.write(Path('new'), 'coco', dict(train=TRAIN, val=VAL)))
    assert len(built(cfg, 'train')) == 3 * 8
    assert len(built(cfg, 'val')) == 4
    assert 'ann_file' not in cfg.val_evaluator


@pytest.mark.parametrize('labelled', [1, 2])
def test_background_images_stay(cfg, labelled):
    own_data.write(Path('streets'), 'coco', dict(all=TEST))
    Path('streets/annotations.json').unlink()
    inner = cfg.train_dataloader.dataset
    streets = dict(type='ImageFolder', data_root='streets', data_prefix=dict(img=''), metainfo=dict(classes=['old']))
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[streets, *[inner] * labelled])
    use_data(cfg, own_data.write(Path('new'), 'coco', dict(train=TRAIN, val=VAL)))
    assert len(built(cfg, 'train')) == 8 + 3
    assert len(built(cfg, 'val')) == 4


def test_other_classes_are_told(cfg, monkeypatch):
    said = []
    monkeypatch.setattr('frdet.apis.own_data.replacing.print_log', lambda text, **_: said.append(text))
    folder = own_data.write(Path('new'), 'coco', dict(train=own_data.draw(8, classes=['circle', 'moon']), val=VAL))
    use_data(cfg, folder)
    assert said == ["new has boxes of 'moon', which the config does not know: they are left out of train"]
    moons = own_data.write(Path('moons'), 'coco', dict(all=own_data.draw(8, classes=['moon'])))
    with pytest.raises(DataError, match='has no class .*: it has moon'):
        use_data(cfg, moons)
        built(cfg, 'train')


def test_what_cannot_be_replaced(cfg, tmp_path):
    folder = own_data.write(Path('new'), 'coco', dict(all=TRAIN))
    (folder / 'annotations.json').rename('annotations.json')
    with pytest.raises(DataError, match='--data new has images and no labels'):
        use_data(cfg, folder)
    Path('annotations.json').rename(folder / 'annotations.json')
    del cfg.test_dataloader.dataset.metainfo
    with pytest.raises(DataError, match=r'The order of the classes is not known .*metainfo\.classes'):
        use_data(cfg, folder)
    with pytest.raises(ConfigError, match='train_dataloader of .* has no data set to replace by --data new'):
        cfg.train_dataloader = None
        cfg.test_dataloader.dataset.metainfo = dict(classes=CLASSES)
        use_data(cfg, folder)
