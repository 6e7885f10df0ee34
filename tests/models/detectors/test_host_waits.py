"""A training step never waits for the GPU: what is queued does not depend on numbers still to be computed."""

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch.utils._python_dispatch import TorchDispatchMode

from frdet.config import load_config
from frdet.engine import AutocastOptimWrapper
from frdet.models.detectors import FasterRCNN
from frdet.models.detectors.base import _image_sizes
from frdet.models.roi_heads import mask_head
from frdet.ops import loading
from frdet.registry import DETECTORS
from frdet.structures import batch_ground_truth
from tests.apis.halves import batch

ROOT = Path(__file__).resolve().parents[3]


CONFIGS = (
    'faster_rcnn/r50_fpn_1x_cocoval',
    'faster_rcnn/r50_fpn_1x_cocoval_ohem',
    'mask_rcnn/mask_rcnn_r50_fpn_1x_coco',
    'cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco',
    'interop/mmdet_cascade_rcnn_r50_fpn',
)


def shipped_model(name: str) -> FasterRCNN:
    """R18 with the shipped R50's rules, FrozenBN among them."""
    changes = {'depth': 18, 'style': 'pytorch', 'init_cfg': None}
    options: dict[str, Any] = {'model.backbone': changes, 'model.neck.in_channels': (64, 128, 256, 512)}
    if name != 'faster_rcnn/r50_fpn_1x_cocoval':  # which is whole
        options |= {'model.rpn_head.post_nms_train': 40, 'model.roi_head.sampler.num': 16}
        options |= {'model.roi_head.bbox_head.fc_channels': 32}
    cfg = load_config(ROOT / f'configs/{name}.py', options)
    return DETECTORS.build(cfg.model).train()


def batch_with_masks(images: list[int]) -> dict:
    data = batch(images)
    for sample in data['data_samples']:
        sample.gt_instances.masks = torch.ones(len(sample.gt_instances), *sample.img_shape, dtype=torch.uint8)
    return data


class NoWaits(TorchDispatchMode):
    """Lists operators whose result's shape depends on data, copies of data to Python, and copies of it from Python.

    On a CPU these cost nothing; on a GPU each waits until everything queued is computed.
    """

    NAMES = ('_local_scalar_dense', 'equal', 'is_nonzero', 'lift_fresh', 'masked_select', 'nonzero', '_unique2')

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.__name__.split('.')[0]
        by_mask = name.startswith('index') and any(
            getattr(i, 'dtype', None) is torch.bool for arg in args if isinstance(arg, (list, tuple)) for i in arg
        )
        if name in self.NAMES or by_mask:
            ours = [
                f
                for f in traceback.extract_stack()[:-1]
                if Path(f.filename).is_relative_to(ROOT / 'frdet') or Path(f.filename).is_relative_to(ROOT / 'tests')
            ]
            self.found.append(f'{name} at {Path(ours[-1].filename).name}:{ours[-1].lineno}')
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif('cpu' not in loading.status().loaded, reason="torchvision's kernels do wait")
@pytest.mark.parametrize('name', CONFIGS)
def test_nothing_depends_on_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ground truth and sizes come from the host and are copied without waiting, which a CPU cannot tell."""
    monkeypatch.setattr(mask_head, '_computed', lambda positive: slice(None))  # as on a GPU
    model = shipped_model(name)
    data = model.data_preprocessor(batch_with_masks([1, 2]), training=True)
    samples = data['data_samples']
    truth, sizes = batch_ground_truth(samples), _image_sizes(data['inputs'], samples)
    with NoWaits() as waits:
        features = model.extract_features(data['inputs'])
        losses, proposals = model.rpn_head.loss(features, truth, sizes)
        losses.update(model.roi_head.loss(features, proposals, truth))
        model.parse_losses(losses)[0].backward()
    assert waits.found == []
    with waits:
        features[0][features[0] > 0]
        torch.tensor(1.0).item()
    assert [name.split()[0] for name in waits.found] == ['index', 'lift_fresh', '_local_scalar_dense']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.parametrize('wrapper', [OptimWrapper, AutocastOptimWrapper])
def test_a_step_does_not_wait_for_the_gpu(wrapper: type[OptimWrapper], name: str) -> None:
    """From the loader's batch to the updated weights, once the first step has chosen algorithms and made caches."""
    model = shipped_model(name).cuda()
    params = [p for p in model.parameters() if p.requires_grad]
    optim = wrapper(optimizer=torch.optim.SGD(params, lr=1e-4, momentum=0.9))
    model.train_step(batch_with_masks([1, 2]), optim)
    data = batch_with_masks([3, 4])
    data['inputs'] = [image.pin_memory() for image in data['inputs']]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        model.train_step(data, optim)
    finally:
        torch.cuda.set_sync_debug_mode('default')
