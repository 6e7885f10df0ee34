"""Validation's loss: against a loop over the images, without a trace in training."""

import json

import pytest
import torch

from frdet.apis import init_detector, train_detector
from frdet.config import load_config
from frdet.datasets import write_shapes
from tests.engine.toy import ROOT
from tests.weights import NARROW

PARTS = ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """Three images to validate on; one has no box, one a box without area."""
    root = write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=2, num_val=3)
    path = root / 'annotations/instances_val2017.json'
    truth = json.loads(path.read_text())
    first, second = sorted(image['id'] for image in truth['images'])[:2]
    truth['annotations'] = [box for box in truth['annotations'] if box['image_id'] != first]
    flat = next(box for box in truth['annotations'] if box['image_id'] == second)
    truth['annotations'].append({**flat, 'id': 10**6, 'bbox': [5.0, 5.0, 0.0, 9.0]})
    path.write_text(json.dumps(truth))
    return root


def train(shapes, work_dir, *, batch=1, hook=True):
    """One epoch of one step; every anchor and RoI counts, so that chance plays no part."""
    options = {
        **{f'{split}_dataloader.dataset.data_root': str(shapes) for split in ('train', 'val', 'test')},
        **{f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')},
        **NARROW,
        'val_evaluator.ann_file': str(shapes / 'annotations/instances_val2017.json'),
        'train_dataloader.batch_size': 2,
        'val_dataloader.batch_size': batch,
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'param_scheduler': [],
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.report': None,
        'model.rpn_head.sampler.num': 10**6,
        'model.rpn_head.normalizer': 'sampled',
        'model.roi_head.sampler.num': 10**6,
        'visualizer.vis_backends': [dict(type='LocalVisBackend')],
    }
    if hook:
        options |= {
            'default_hooks.val_loss': dict(type='ValLossHook'),
            'default_hooks.checkpoint.save_best': 'val_loss',
        }
    cfg = load_config(ROOT / 'configs/quickstart/r18_fpn_shapes.py', options)
    train_detector(cfg, work_dir=str(work_dir), seed=3)
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    figures = [record for line in log.read_text().splitlines() if 'coco/bbox_mAP' in (record := json.loads(line))]
    return cfg, figures[-1], work_dir / 'epoch_1.pth'


def test_mean_over_the_images(shapes, tmp_path):
    cfg, figures, checkpoint = train(shapes, tmp_path)
    assert (tmp_path / 'best_val_loss_epoch_1.pth').is_file()
    model = init_detector(cfg, str(checkpoint))
    dataset = load_dataset(cfg)
    sums = dict.fromkeys(PARTS, 0.0)
    for index in range(3):
        data = dataset[index]
        batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        boxes = data['data_samples'].gt_instances
        data['data_samples'].gt_instances = boxes[boxes.bboxes[:, 2] > boxes.bboxes[:, 0]]
        with torch.no_grad():
            losses = model(**model.data_preprocessor(batch, False), mode='loss')
        for name in PARTS:
            sums[name] += float(losses[name]) / 3
    for name in PARTS:
        assert figures[f'val_{name}'] == pytest.approx(sums[name], rel=1e-5)
    assert figures['val_loss'] == pytest.approx(sum(sums.values()), rel=1e-5)
    assert sums['loss_bbox'] > 0


def load_dataset(cfg):
    from frdet.registry import DATASETS

    return DATASETS.build(cfg.val_dataloader.dataset)


def test_training_does_not_notice(shapes, tmp_path):
    _, _, seen = train(shapes, tmp_path / 'a')
    _, figures, unseen = train(shapes, tmp_path / 'b', hook=False)
    assert not any(name.startswith('val_loss') for name in figures)
    one, other = (torch.load(path, weights_only=True) for path in (seen, unseen))
    assert all(torch.equal(one['state_dict'][name], other['state_dict'][name]) for name in one['state_dict'])


def test_an_uneven_last_batch_counts_by_its_images(shapes, tmp_path):
    """Two images and one: means over images, not over batches. Padding moves the figures a little."""
    _, single, _ = train(shapes, tmp_path / 'a')
    _, pairs, _ = train(shapes, tmp_path / 'b', batch=2)
    assert pairs['val_loss_rpn_cls'] == pytest.approx(single['val_loss_rpn_cls'], rel=0.05)
