"""The heads of the other families, exported to ONNX on one map of stride 8, and compared with the model."""

import pytest
import torch
from torch import nn

from frdet.apis import check_exported, export_detector
from frdet.apis.export.checking import _compare
from frdet.config import load_config
from frdet.registry import DETECTORS
from tests.apis.export.test_exporting import CLASSES, IDS, ROOT, files  # noqa: F401  # a fixture
from tests.apis.export.test_masks import OneMap

ONE_STAGE = {
    'model.bbox_head.num_classes': 5,
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16,
    'model.bbox_head.stacked_convs': 1,
    'model.bbox_head.anchor_generator.strides': (8,),
    'model.bbox_head.score_thr': 0.2,
    'model.bbox_head.max_per_image': 30,
}
CASCADE = {
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.rpn_head.post_nms_test': 50,
    'model.rpn_head.anchor_generator.strides': (8,),
    'model.rpn_head.anchor_generator.sizes': ((32, 64),),
    'model.roi_head.roi_extractor.strides': (8,),
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_channels': 16,
    'model.roi_head.bbox_head.num_classes': 5,
    'model.roi_head.num_stages': 2,
    'model.roi_head.stage_loss_weights': (1.0, 1.0),
    'model.roi_head.score_thr': 0.25,
    'model.roi_head.max_per_image': 30,
}
SIZES = 'model.bbox_head.anchor_generator.sizes'
#: Each config, its options, and the spread of the weights of the last layers.
HEADS = {
    'retinanet/retinanet_r50_fpn_1x_coco': (
        {**ONE_STAGE, SIZES: ((32, 64),)},
        {'retina_cls': 0.05, 'retina_reg': 0.05},
    ),
    'fcos/fcos_r50_fpn_1x_coco': (
        {**ONE_STAGE, SIZES: ((8,),), 'model.bbox_head.norm.num_groups': 4},
        {'conv_cls': 0.1, 'conv_reg': 0.02, 'conv_centerness': 0.1},
    ),
    'cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco': (
        CASCADE,
        {'rpn_cls': 0.5, 'rpn_reg': 0.05, 'fc_cls': 1.0, 'fc_reg': 0.2},
    ),
}


@pytest.mark.parametrize('name', HEADS)
def test_the_file_detects_as_the_model(name, files, tmp_path):  # noqa: F811
    options, spreads = HEADS[name]
    cfg = load_config(ROOT / f'configs/{name}.py', options)
    cfg.model.backbone, cfg.model.neck = dict(type='OneMap'), None
    if 'roi_head' in cfg.model:
        for part in ('box_coder', 'assigner'):
            cfg.model.roi_head[part] = cfg.model.roi_head[part][:2]
    cfg.test_dataloader.dataset.pipeline[1].update(short_side=112, max_size=160)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(cfg.model).eval()
        for path, layer in model.named_modules():
            if (kind := path.rpartition('.')[2]) in spreads:
                nn.init.normal_(layer.weight, std=spreads[kind])
                nn.init.constant_(layer.bias, 1.0 if kind == 'conv_reg' else 0.0)  # distances, and 0 below 0
    model.cfg, model.dataset_meta = cfg, {'classes': CLASSES, 'category_ids': IDS}
    assert isinstance(model.backbone, OneMap)
    export_detector(model, tmp_path / 'a.onnx', optimize=False)
    *differences, _ = check_exported(model, tmp_path / 'a.onnx', files)  # on the grey image all cells are equal
    assert all(d.is_small and d.box < 0.1 and 0 < d.score < 1e-3 and d.detections > 5 for d in differences)


def test_boxes_that_the_border_has_made_equal():
    """NMS before clipping keeps both; of each pair the boxes differ by nothing, and the scores by 0.001 at most."""
    boxes = torch.tensor([[0.0, 0, 64, 48], [0, 0, 64, 48], [8, 8, 20, 20]])
    scores, labels, masks = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([2, 2, 0]), torch.zeros(3, 0, 0)
    other = (boxes[[1, 0, 2]], scores[[1, 0, 2]] + 0.001, labels, masks)
    box, score, mask, unpaired = _compare((boxes, scores, labels, masks), other, 0.0)
    assert (box, mask, unpaired) == (0, 0, 0) and score == pytest.approx(0.001, abs=1e-6)
    farther = (boxes + 0.5, scores + 0.2, labels, masks)  # both are seen, and neither hides the other
    assert _compare((boxes, scores, labels, masks), farther, 0.0)[:2] == (0.5, pytest.approx(0.2))
    assert _compare((boxes, scores, labels, masks), (boxes[:0], scores[:0], labels[:0], masks[:0]), 0.0)[3] == 3
