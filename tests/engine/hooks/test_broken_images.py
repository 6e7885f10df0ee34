"""A broken image is left out of training, named once, and stops it where there are too many."""

import json
import logging

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import DataLoader

from frdet.datasets import CocoDataset
from frdet.engine.hooks import BrokenImagesHook
from frdet.errors import BrokenImageError, ConfigError, DataError
from frdet.registry import TRANSFORMS
from tests.engine import toy

PIPELINE = [dict(type='LoadImage'), dict(type='PackDetInputs')]
COUNT = 12


@pytest.fixture
def root(tmp_path):
    """Twelve images with ids 1 to 12; 3 is missing, 7 and 8 are no images."""
    (tmp_path / 'images').mkdir()
    for number in range(1, COUNT + 1):
        Image.new('RGB', (8, 6)).save(tmp_path / 'images' / f'{number}.png')
    (tmp_path / 'images/3.png').unlink()
    (tmp_path / 'images/7.png').write_bytes(b'no image')
    (tmp_path / 'images/8.png').write_bytes(b'')
    images = [{'id': i, 'file_name': f'{i}.png', 'height': 6, 'width': 8} for i in range(1, COUNT + 1)]
    content = {'images': images, 'annotations': [], 'categories': [{'id': 1, 'name': 'a'}]}
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    return tmp_path


def data_set(root, **kwargs):
    settings = dict(ann_file='ann.json', data_prefix=dict(img='images'), pipeline=PIPELINE)
    return CocoDataset(data_root=root, **settings, **kwargs)


def seen(dataset, num_workers=0, **kwargs):
    """Image ids in two epochs, and how often each image was said to be broken."""
    loader = DataLoader(dataset, batch_size=2, num_workers=num_workers, collate_fn=pseudo_collate, **kwargs)  # in order
    ids, broken = [], []
    for _ in range(2):
        for batch in loader:
            ids += [sample.img_id for sample in batch['data_samples']]
            broken += [m.split(' (id')[0][-5:] for s in batch['data_samples'] for m in s.get('broken_images', ())]
    return ids, broken


@pytest.mark.parametrize('workers', [dict(), dict(num_workers=2, persistent_workers=True)])
def test_the_next_image_stands_in(root, workers):
    """4 for 3, and 9 for 7 (past 8) and for 8; whatever worker met it."""
    ids, broken = seen(data_set(root), **workers)
    assert ids == 2 * [1, 2, 4, 4, 5, 6, 9, 9, 9, 10, 11, 12]
    assert broken == 2 * ['3.png', '7.png', '8.png', '8.png']


def test_after_the_last_comes_the_first(root):
    (root / 'images/12.png').unlink()
    assert data_set(root)[11]['data_samples'].img_id == 1


def test_no_random_number_is_drawn(root):
    """Flips of the images that follow are the same whether or not one was broken."""
    pipeline = [dict(type='LoadImage'), dict(type='RandomFlip'), dict(type='PackDetInputs')]
    settings = dict(ann_file='ann.json', data_prefix=dict(img='images'), pipeline=pipeline)

    def flips():
        np.random.seed(1)
        dataset = CocoDataset(data_root=root, **settings)
        return [dataset[i]['data_samples'].flip for i in range(COUNT)]

    with_broken = flips()
    for number in (3, 7, 8):
        Image.new('RGB', (8, 6)).save(root / 'images' / f'{number}.png')
    assert flips() == with_broken
    assert len(set(with_broken)) == 2


def test_testing_stops(root):
    dataset = data_set(root, test_mode=True)
    with pytest.raises(BrokenImageError, match=r'3\.png \(id 3\) is not on disk'):
        dataset[2]
    with pytest.raises(BrokenImageError, match=r'7\.png \(id 7\) cannot be decoded'):
        list(DataLoader(dataset, sampler=[6], num_workers=1, collate_fn=pseudo_collate))


def test_another_size_stops_training(root):
    Image.new('RGB', (6, 8)).save(root / 'images/3.png')
    with pytest.raises(DataError, match='its annotation says 8x6'):
        data_set(root)[2]


def test_ten_in_a_row_stop_training(root):
    for number in range(1, 11):
        (root / f'images/{number}.png').unlink(missing_ok=True)
    with pytest.raises(BrokenImageError, match='10.png .*is not on disk'):
        data_set(root)[0]
    assert data_set(root)[1]['data_samples'].img_id == 11


def test_a_sample_that_cannot_say_so_stops_training(root):
    """Without PackDetInputs nobody could count what was left out."""
    dataset = CocoDataset(
        data_root=root, ann_file='ann.json', data_prefix=dict(img='images'), pipeline=[dict(type='LoadImage')]
    )
    with pytest.raises(BrokenImageError, match='3.png'):
        dataset[2]


def trained(tmp_path, root, max_share, **changes):
    """Two epochs with batches of 4, from worker processes; every epoch asks for 16 images, 4 of them broken."""
    dataset = dict(
        type='CocoDataset', data_root=str(root), ann_file='ann.json', data_prefix=dict(img='images'), pipeline=PIPELINE
    )
    loader = dict(
        batch_size=4,
        num_workers=2,
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dataset,
    )
    cfg = toy.config(
        tmp_path / 'work',
        train_dataloader=loader,
        **{'train_cfg.max_epochs': 2, 'default_hooks.broken_images.max_share': max_share, 'model.num_classes': 1},
        **changes,
    )
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    del cfg.default_hooks.checkpoint['save_best']
    run = Runner.from_cfg(cfg)
    run.model.forward = first_pixels(run.model.forward)
    return run


def first_pixels(forward):
    """The toy takes one number for an image."""
    return lambda inputs, *args, **kwargs: forward([image.flatten()[:1] for image in inputs], *args, **kwargs)


def hook_of(run):
    return next(hook for hook in run.hooks if isinstance(hook, BrokenImagesHook))


def test_training_names_each_once_and_goes_on(tmp_path, root, caplog):
    run = trained(tmp_path, root, 0.05)  # 10 of 200
    run.logger.addHandler(caplog.handler)
    run.train()
    assert run.iter == 6
    hook = hook_of(run)
    assert (hook.broken, hook.asked) == (8, 32)
    lines = [r.getMessage() for r in caplog.records if 'Trained on the next image instead' in r.getMessage()]
    assert [line.split(' (id')[0].rpartition('/')[2] for line in lines] == ['3.png', '7.png', '8.png']
    assert all(r.levelno == logging.ERROR for r in caplog.records if 'instead' in r.getMessage())


def test_too_many_stop_training(tmp_path, root):
    """1% of 200 is 2: the second batch brings the second to fourth broken image."""
    run = trained(tmp_path, root, 0.01)
    with pytest.raises(DataError) as error:
        run.train()
    assert run.iter == 1
    message = str(error.value)
    assert message.startswith('4 of 12 images could not be read, more than 1.0% of at least 200')
    assert all(f'{number}.png' in message for number in (3, 7, 8))
    assert len(message.splitlines()) == 2


@TRANSFORMS.register_module(force=True)
class Sums:
    """A pipeline's end that packs no sample: a number of an image."""

    def __call__(self, results):
        return dict(inputs=torch.tensor([float(results['img'].sum())]))


def test_images_that_no_sample_tells_of_are_counted(tmp_path, root, caplog):
    run = trained(
        tmp_path, root, 0.05, **{'train_dataloader.dataset.pipeline': [dict(type='LoadImage'), dict(type='Sums')]}
    )
    run.logger.addHandler(caplog.handler)
    run.train()
    hook = hook_of(run)
    assert (hook.broken, hook.asked) == (8, 32)
    lines = [r.getMessage() for r in caplog.records if 'Trained on the next image instead' in r.getMessage()]
    assert [line.split(' (id')[0].rpartition('/')[2] for line in lines] == ['3.png', '7.png', '8.png']


def batch(good, broken=0):
    samples = [toy.DetDataSample() for _ in range(good)]
    samples[0].set_metainfo({'broken_images': [f'image {i}' for i in range(broken)]})
    return {'data_samples': samples}


@pytest.mark.parametrize(
    ('max_share', 'asked', 'allowed'),
    [
        (0.01, 100, 2),  # 1% of 200, the least
        (0.01, 1000, 10),
        (0.0, 1000, 0),
        (1.0, 100, 100),
    ],
)
def test_the_share(tmp_path, max_share, asked, allowed):
    run = toy.runner(tmp_path)
    hook = BrokenImagesHook(max_share=max_share)
    hook.before_train_iter(run, 0, batch(max(asked - allowed, 1), allowed))
    if allowed < asked:
        with pytest.raises(DataError, match='could not be read'):
            hook.before_train_iter(run, 1, batch(1, 1))


def test_a_wrong_share():
    with pytest.raises(ConfigError, match='max_share is 2'):
        BrokenImagesHook(max_share=2)
