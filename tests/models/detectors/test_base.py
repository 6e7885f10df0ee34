"""A detector of a user's own: parts that it declares, ``losses`` and ``detect``; the rest is the base's."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

from frdet.apis.export import export_program
from frdet.engine import predict_in_bfloat16
from frdet.errors import ConfigError, DataError
from frdet.models.detectors import Detector, class_counts
from frdet.models.task_modules import Detections
from frdet.registry import BACKBONES, DENSE_HEADS, DETECTORS, build_parts
from frdet.structures import DetDataSample

ROOT = Path(__file__).resolve().parents[3]
PREPROCESSOR = dict(type='DetPreprocessor', mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), pad_size_divisor=8)
CFG = dict(
    type='BaseTestOneStage',
    data_preprocessor=PREPROCESSOR,
    backbone=dict(type='BaseTestNet'),
    neck=dict(type='FPN', out_channels=4, last_level='p6p7_on_p5'),
    head=dict(type='BaseTestHead', num_classes=3),
)


@BACKBONES.register_module(name='BaseTestNet')
class Net(nn.Module):
    out_channels = (4, 6)

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 8, stride=8), nn.Conv2d(4, 6, 2, stride=2)

    def forward(self, x):
        first = self.first(x)
        return first, self.second(first)


@DENSE_HEADS.register_module(name='BaseTestHead')
class Head(nn.Module):
    """One class score vector and one fixed box a cell."""

    class_layers = ('cls',)

    def __init__(self, *, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.cls = nn.Conv2d(4, num_classes, 3, padding=1)

    def forward(self, features):
        return torch.cat([self.cls(f).flatten(2) for f in features], dim=2).transpose(1, 2).float()


@DETECTORS.register_module(name='BaseTestOneStage')
class OneStage(Detector):
    parts = dict(head=DENSE_HEADS)

    def __init__(self, *, head: dict, **kwargs: Any):
        super().__init__(**kwargs)
        build_parts(self, head=head)

    def losses(self, features, truth, image_sizes):
        assert image_sizes.shape == (len(truth.labels), 2)
        wanted = nn.functional.one_hot(truth.labels, 3).float().amax(dim=1)
        return {'loss_cls': (self.head(features).mean(dim=1) - wanted).square().mean(), 'num': truth.valid.sum()}

    def detect(self, features, image_sizes):
        """Two places: the left upper quarter of the image, and nothing."""
        score, label = self.head(features).mean(dim=1).sigmoid().max(dim=1)
        height, width = image_sizes.unbind(1)
        zero = torch.zeros_like(height)
        boxes = torch.stack([zero, zero, width / 2, height / 2], dim=1)
        return Detections(
            torch.stack([boxes, torch.zeros_like(boxes)], dim=1),
            torch.stack([score, zero], dim=1),
            torch.stack([label, torch.full_like(label, -1)], dim=1),
        )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return DETECTORS.build(copy.deepcopy(CFG))


def data(labels=(0, 2)):
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).expand(len(labels), -1)
    sample = DetDataSample(metainfo=dict(img_path='a.jpg', img_shape=(64, 96), ori_shape=(128, 96)))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor(labels))
    return {'inputs': [torch.full((3, 64, 96), 9, dtype=torch.uint8)], 'data_samples': [sample]}


def test_it_is_trained(model):
    batch = model.data_preprocessor(data(), training=True)
    losses = model(**batch, mode='loss')
    assert losses['num'] == 2
    losses['loss_cls'].backward()
    assert model.head.cls.weight.grad.abs().sum() > 0 and model.backbone.first.weight.grad.abs().sum() > 0


def test_empty_places_are_dropped_and_boxes_brought_back(model):
    (sample,) = model.eval().test_step(data())
    # Half of (64, 96) is (32, 48); the original is twice as high.
    assert sample.pred_instances.bboxes.tolist() == [[0.0, 0.0, 48.0, 64.0]]
    assert len(sample.pred_instances.labels) == len(sample.pred_instances.scores) == 1


def test_the_neck_gets_the_channels_of_the_backbone(model):
    assert model.neck.in_channels == (4, 6)
    features, raw = model(torch.zeros(1, 3, 64, 96), mode='tensor')
    assert [tuple(f.shape) for f in features] == [(1, 4, 8, 12), (1, 4, 4, 6), (1, 4, 2, 3), (1, 4, 1, 2)]
    assert raw is None
    without = {**CFG, 'backbone': dict(type='BaseTestNet')}
    Net.out_channels, known = None, Net.out_channels
    try:
        with pytest.raises(ConfigError, match=r'model\.neck\.in_channels is not given, and Net has no out_channels'):
            DETECTORS.build(without)
    finally:
        Net.out_channels = known


def test_labels_that_are_no_class_are_refused(model):
    """By the preprocessor, while they are on the CPU: it is told the number of classes of a part built last."""
    with pytest.raises(DataError, match=r'a\.jpg: found the label 3: expected 0 to 2, as there are 3 classes'):
        model.data_preprocessor(data(labels=(0, 3)), training=True)


def test_every_part_is_channels_last(model):
    assert model.head.cls.weight.is_contiguous(memory_format=torch.channels_last)


def test_number_of_classes(model):
    assert model.num_classes == 3
    assert class_counts(model) == {'model.head.num_classes': 3}
    model.num_classes = 5  # a detector whose own layers depend on the classes
    assert model.num_classes == 5
    assert class_counts(model) == {'model.num_classes': 5, 'model.head.num_classes': 3}


def test_bfloat16(model):
    seen = []
    model.head.cls.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    model.eval()
    predict_in_bfloat16(model)
    for one in (model, copy.deepcopy(model)):
        one.test_step(data())
    assert set(seen) == {torch.bfloat16}


def test_predict_of_a_subclass_is_called(model):
    class Own(OneStage):
        def predict(self, inputs, data_samples):
            return 'own'

        def loss(self, inputs, data_samples):
            return 'loss'

    model.__class__ = Own
    assert model.test_step(data()) == 'own'
    assert model(torch.zeros(1, 3, 8, 8), mode='loss') == 'loss'


@torch.no_grad()
def test_it_is_exported(model):
    model.eval()
    image = torch.randint(0, 255, (1, 3, 144, 160)).float()  # two cells of stride 64 at least
    boxes, scores, labels = export_program(model).module()(image, torch.tensor([[144, 160]]))
    assert boxes.tolist() == [[[0.0, 0.0, 80.0, 72.0], [0.0] * 4]]
    expected = model.detect(model.extract_features(image), torch.tensor([[144.0, 160.0]]))
    torch.testing.assert_close(scores, expected.scores)
    assert torch.equal(labels, expected.labels)


def test_a_family_without_its_two_methods(model):
    model.__class__ = Detector
    with pytest.raises(ConfigError, match=r'Detector has no method losses\(features, truth, image_sizes\)'):
        model(**model.data_preprocessor(data()), mode='loss')
    with pytest.raises(ConfigError, match='Detector has no method detect'):
        model.test_step(data())


@pytest.mark.parametrize(
    ('wrong', 'shapes'),
    [
        (lambda found: found._replace(boxes=found.boxes[0]), r'\[\(2, 4\), \(1, 2\), \(1, 2\)\]'),
        (lambda found: found._replace(scores=found.scores[:, :1]), r'\[\(1, 2, 4\), \(1, 1\), \(1, 2\)\]'),
        (lambda found: [found.boxes, found.scores], r'\[\(1, 2, 4\), \(1, 2\)\]'),
        (lambda found: None, r'\[\]'),
        (lambda found: [[], [], []], r"\['list', 'list', 'list'\]"),
    ],
)
def test_detections_of_another_shape(model, monkeypatch, wrong, shapes):
    detect = type(model).detect
    monkeypatch.setattr(type(model), 'detect', lambda self, *args: wrong(detect(self, *args)))
    with pytest.raises(ConfigError, match=rf'detect of {type(model).__name__} in .* returns {shapes}: expected'):
        model.eval().test_step(data())


@pytest.mark.parametrize(
    'place',
    ['config', 'engine', 'registry.py', 'apis'],
)
def test_the_shell_asks_the_detector_alone(place):
    """No file around the models names the heads of one family; registries of heads are there for all."""
    path = ROOT / 'frdet' / place
    files = path.rglob('*.py') if path.is_dir() else [path]
    for file in files:
        if file.parent.name == 'own_data':  # it writes configs of a Faster R-CNN
            continue
        assert not re.search(r'\broi_head\b|\bbbox_head\b|\brpn_head\b', file.read_text()), file
