"""A detector with masks, exported: as ``test_exporting.py`` does it without."""

import json

import onnx
import pytest
import torch
from torch import nn

from frdet.apis import check_exported, export_detector, inference_detector, init_detector
from frdet.apis.export import exporting
from frdet.apis.export.exporting import plain_copy
from frdet.config import load_config
from frdet.registry import BACKBONES, DETECTORS
from tests.apis.export.test_exporting import CLASSES, IDS, ROOT, SMALL, files, images  # noqa: F401  # fixtures
from tests.weights import calibrate_detector


@BACKBONES.register_module(force=True)
class OneMap(nn.Conv2d):
    """Of stride 8: a pyramid would take several times as long to export."""

    def __init__(self):
        super().__init__(3, 16, 9, stride=8, padding=4)

    def forward(self, x):
        return (super().forward(x).relu(),)


@pytest.fixture(scope='module')
def model(images):  # noqa: F811
    options = {key: value for key, value in SMALL.items() if 'neck' not in key}
    cfg = load_config(ROOT / 'configs/interop/torchvision_r50_fpn.py', options)
    cfg.model.backbone, cfg.model.neck = dict(type='OneMap'), None
    cfg.model.rpn_head.anchor_generator.update(strides=(8,), sizes=((32, 64),))
    cfg.model.roi_head.roi_extractor.strides = (8,)
    cfg.model.roi_head.mask_head = dict(
        type='FCNMaskHead',
        roi_extractor=dict(type='MultiScaleRoIAlign', strides=(8,), output_size=4, sampling_ratio=2),
        num_classes=5, in_channels=16, num_convs=1, conv_channels=8, loss_mask=dict(type='BinaryCrossEntropyLoss'),
        paste='torchvision', mask_thr_binary=0.4,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(cfg.model)
        nn.init.normal_(model.roi_head.mask_head.conv_logits.weight, std=0.02)
        calibrate_detector(model, images)
    model.cfg, model.dataset_meta = cfg, {'classes': CLASSES, 'category_ids': IDS}
    return model.eval()


@pytest.fixture(scope='module')
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported')
    export_detector(model, folder / 'a.onnx', optimize=False)
    return folder


def test_the_check_compares_masks(model, exported, files):  # noqa: F811
    differences = check_exported(model, exported / 'a.onnx', files)
    assert all(d.is_small and 0 <= d.mask < 1e-3 for d in differences) and differences[0].detections > 5
    other = plain_copy(model)
    with torch.no_grad():
        other.roi_head.mask_head.conv_logits.bias += 0.2
    different = check_exported(other, exported / 'a.onnx', files[:1])[0]
    assert different.mask > 0.02 and different.box < 0.1 and different.score < 1e-3 and not different.is_small


def test_outputs_and_metadata(exported):
    file = onnx.load(exported / 'a.onnx', load_external_data=False)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in file.graph.output
    }
    assert list(shapes) == ['boxes', 'scores', 'labels', 'masks'] and shapes['masks'] == ['batch', 30, 8, 8]
    facts = json.loads({entry.key: entry.value for entry in file.metadata_props}['frdet'])
    assert facts['masks'] == {'threshold': 0.4, 'rule': 'torchvision'}


def test_the_onnx_file_as_a_detector(model, exported, files):  # noqa: F811
    """Pasted masks of the original image, of the model and of the file."""
    found, expected = (
        inference_detector(one, files[0]).pred_instances for one in (init_detector(exported / 'a.onnx'), model)
    )
    assert len(found) == len(expected) > 5 and found.masks.shape == expected.masks.shape
    assert found.masks.dtype == torch.bool and found.masks.any()
    assert (found.masks != expected.masks).float().mean() < 1e-3


def test_without_masks_nothing_is_said_of_them(model):
    plain = plain_copy(model)
    plain.roi_head.mask_head = None
    assert exporting.facts_of(plain)['masks'] is None
