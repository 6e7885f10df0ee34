"""Small detectors of random weights that find some objects, and traces of them."""

import functools
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from frdet.apis.classes import classes_of_split, resolve_num_classes
from frdet.config import load_config
from frdet.insight.trace import trace_objects
from frdet.registry import DATASETS, DETECTORS, in_config_scope
from tests.insight.step.steps import coco_config
from tests.insight.trace.losing import ROOT
from tests.weights import NARROW

MOST = 100  #: detections of a class and image that the metric counts
EXAMPLES = ROOT / 'docs/examples'
CONFIGS = {
    'two stages': ROOT / 'configs/quickstart/r18_fpn_shapes.py',
    'one stage': EXAMPLES / 'retina/retina_shapes.py',
    'cascade': EXAMPLES / 'cascade/cascade_shapes.py',
}
#: Standard deviation and mean of the outputs of layers, by the end of their names: about those of trained ones.
OUTPUTS = {
    'rpn_cls': (1.0, 0.0), 'rpn_reg': (0.2, 0.0), 'fc_cls': (1.5, 0.0), 'fc_reg': (0.5, 0.0),
    'retina_cls': (1.0, -2.0), 'retina_reg': (0.2, 0.0),
}  # fmt: skip


def shapes(root: Path, family: str = 'two stages', **changes: Any) -> Config:
    """A detector of ``family`` on the drawn data set in ``root``."""
    for name in ('retina', 'cascade'):
        if str(EXAMPLES / name) not in sys.path:
            sys.path.append(str(EXAMPLES / name))
    data = {
        'test_dataloader.dataset.data_root': str(root),
        'test_dataloader.dataset.pipeline.1': dict(_delete_=True, type='Resize', scale=(112, 144)),  # no padding
        'default_hooks.report': None,
        'visualizer.vis_backends': [],
    }
    head = 'model.head' if family == 'one stage' else 'model.roi_head'
    more = {f'{head}.max_per_image': 300, 'test_evaluator.max_dets': (1, 10, MOST)}
    if family != 'one stage':
        more |= {'model.rpn_head.pre_nms_test': 400, 'model.rpn_head.post_nms_test': 300}
    return load_config(CONFIGS[family], {**NARROW, **data, **more, **changes})


def large_things(coco_root: Any, out: Path) -> Path:
    """Annotations of the ten images with the largest objects, all of one class: random weights find few small ones."""
    content = json.loads((coco_root.root / coco_root.val_ann).read_text())
    area = {image['id']: image['height'] * image['width'] for image in content['images']}
    shares = Counter[int]()
    for one in content['annotations']:
        shares[one['image_id']] = max(shares[one['image_id']], one['bbox'][2] * one['bbox'][3] / area[one['image_id']])
    chosen = {image for image, _ in shares.most_common(10)}
    few = dict(
        images=[image for image in content['images'] if image['id'] in chosen],
        annotations=[{**one, 'category_id': 1} for one in content['annotations'] if one['image_id'] in chosen],
        categories=[dict(id=1, name='thing')],
    )
    out.write_text(json.dumps(few))
    return out


def photographs(coco_root: Any, ann_file: Path, **changes: Any) -> Config:
    """A small Faster R-CNN of ResNet-18 on the images of ``ann_file``, some of ``coco_root``."""
    smaller = {
        'test_dataloader': dict(num_workers=0, persistent_workers=False),
        'test_dataloader.dataset': dict(
            data_root=str(coco_root.root), ann_file=str(ann_file), data_prefix=dict(img=coco_root.val_prefix)
        ),
        'test_dataloader.dataset.pipeline.1.short_side': 128,
        'model.backbone.norm': dict(type='BN'),
        'model.rpn_head.anchor_generator.sizes': ((16,), (32,), (48,), (64,), (96,)),
        'model.rpn_head.pre_nms_test': 150,
        'model.rpn_head.post_nms_test': 500,
        'model.roi_head.bbox_head.num_classes': None,
        'model.roi_head.max_per_image': 300,
        'test_evaluator.max_dets': (1, 10, MOST),
        'default_hooks.report': None,
        'visualizer.vis_backends': [],
    }
    return coco_config(coco_root, **{**smaller, **changes})


@in_config_scope
def weights(cfg: Config, seed: int, path: Path) -> str:
    """Write random weights whose outputs on the tested images are as varied as ``OUTPUTS`` says."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        resolve_num_classes(cfg, lambda: classes_of_split(cfg, 'test'))
        model = DETECTORS.build(cfg.model)
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        batch = model.data_preprocessor({k: [dataset[i][k] for i in range(4)] for k in ('inputs', 'data_samples')})
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
            elif isinstance(module, nn.GroupNorm):
                raise AssertionError('only BN is calibrated')
        handles = [
            layer.register_forward_hook(functools.partial(_set_outputs, *OUTPUTS[name.rpartition('.')[2]], []))
            for name, layer in model.named_modules()
            if name.rpartition('.')[2] in OUTPUTS
        ]
        with torch.no_grad():
            model.train()(**batch, mode='predict')
    for handle in handles:
        handle.remove()
    torch.save(model.state_dict(), path)
    return str(path)


def _set_outputs(spread: float, mean: float, done: list, layer: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """Scale a layer at its first call; later calls are of other levels."""
    if done:
        return output
    done.append(True)
    factor = spread / output.std()
    layer.weight.mul_(factor)
    layer.bias.mul_(factor).add_(mean - (output * factor).mean())
    return output * factor + mean - (output * factor).mean()


def trace_small(cfg: Config, checkpoint: str, folder: Path, **options: Any) -> None:
    """Write a trace to ``trace`` in the folder, and the detections of ``CocoMetric`` in the same run beside it."""
    cfg.test_evaluator.outfile = str(folder / 'results.json')
    cfg.work_dir = str(folder / 'work')
    trace_objects(cfg, checkpoint, folder / 'trace', **options)


def main(rank: str, meeting: str, root: str, checkpoint: str, out: str) -> None:
    """One of two processes that trace together."""
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2')
    torch.distributed.init_process_group('gloo', init_method=f'file://{meeting}', rank=int(rank), world_size=2)
    trace_small(shapes(Path(root)), checkpoint, Path(out), launcher='pytorch')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
