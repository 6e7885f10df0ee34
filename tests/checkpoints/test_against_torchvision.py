"""torchvision's configs of configs/interop beside torchvision itself: the same files, weights and numbers.

Every step of both is their own: reading and resizing the images, normalising, boxes, labels. All anchors and proposals
are sampled, so that chance plays no part.
"""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList

from frdet.apis import inference_detector, init_detector
from frdet.checkpoints import convert_state_dict
from frdet.config import load_config
from frdet.models.detectors import FasterRCNN
from frdet.registry import DATASETS, DETECTORS
from tests.conftest import CocoRoot
from tests.models.torchvision_twin import EVERYTHING, calibrate, in_double, to_frdet

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/interop'
LOSSES = {
    'loss_rpn_cls': 'loss_objectness',
    'loss_rpn_bbox': 'loss_rpn_box_reg',
    'loss_cls': 'loss_classifier',
    'loss_bbox': 'loss_box_reg',
}


class Version(NamedTuple):
    """A network of torchvision, and how much of it is compared: four convolutions for each RoI take long."""

    config: str
    build: Callable[..., TorchvisionFasterRCNN]
    short_side: int  # of the images, in pixels
    proposals_train: int
    proposals_test: int
    photos: int
    steps: int
    pixels: float  # largest difference of a box; it grows by rounding with the number of layers

    @property
    def sizes(self) -> tuple[int, int]:
        """The short side, and the largest side."""
        return self.short_side, self.short_side * 3 // 2


def first_version(**arguments: int) -> TorchvisionFasterRCNN:
    """fasterrcnn_resnet50_fpn with the norms of its training."""
    backbone = resnet_fpn_backbone(backbone_name='resnet50', weights=None, trainable_layers=3)
    return TorchvisionFasterRCNN(backbone, num_classes=91, **arguments)


def second_version(**arguments: int) -> TorchvisionFasterRCNN:
    """fasterrcnn_resnet50_fpn_v2 with the layers frozen that torchvision freezes for fine-tuning."""
    model = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=91, **arguments)
    for layer in (model.backbone.body.conv1, model.backbone.body.layer1):
        layer.requires_grad_(False)
    return model


VERSIONS = [
    Version('torchvision_r50_fpn.py', first_version, 96, 100, 1000, 4, 2, 0.01),
    Version('torchvision_r50_fpn_v2.py', second_version, 64, 6, 40, 2, 1, 0.02),
]


class Photo(NamedTuple):
    path: Path
    image: Tensor  # (3, H, W) RGB of 0..1
    target: dict[str, Tensor]


@pytest.fixture(scope='module', params=VERSIONS, ids=lambda version: version.config)
def version(request: pytest.FixtureRequest) -> Version:
    return request.param


@pytest.fixture(scope='module')
def photos(coco_root: CocoRoot, version: Version) -> list[Photo]:
    """Read as torchvision's reference scripts do: RGB, xyxy, the category id as label."""
    content = json.loads((coco_root.root / coco_root.val_ann).read_text())
    found = []
    for record in sorted(content['images'], key=lambda r: r['id']):
        rows = [a for a in content['annotations'] if a['image_id'] == record['id'] and not a['iscrowd']]
        if len(rows) < 2:
            continue
        path = coco_root.val_dir / record['file_name']
        pixels = torch.from_numpy(np.array(Image.open(path).convert('RGB'))).permute(2, 0, 1) / 255
        boxes = torch.tensor([a['bbox'] for a in rows], dtype=torch.float64)
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
        boxes[:, 0::2] = boxes[:, 0::2].clamp(max=record['width'])
        boxes[:, 1::2] = boxes[:, 1::2].clamp(max=record['height'])
        labels = torch.tensor([a['category_id'] for a in rows])
        found.append(Photo(path, pixels, {'boxes': boxes.float(), 'labels': labels}))
        if len(found) == version.photos:
            break
    return found


@pytest.fixture(scope='module')
def cfg(coco_root: CocoRoot, version: Version) -> Config:
    """The shipped config but for the size, the data, and sampling."""
    cfg = load_config(CONFIGS / version.config)
    classes = ['N/A'] * 90
    for category in json.loads((coco_root.root / coco_root.val_ann).read_text())['categories']:
        classes[category['id'] - 1] = category['name']
    if coco_root.is_real:
        assert classes == list(cfg.test_dataloader.dataset.metainfo.classes)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        data = loader.dataset
        data.update(data_root=str(coco_root.root), ann_file=coco_root.val_ann, data_prefix=dict(img='val2017/'))
        data.metainfo.classes = classes
        for step in data.pipeline:
            if step.type == 'ResizeShortestEdge':
                step.short_side, step.max_size = version.sizes
            if step.type == 'RandomFlip':
                step.prob = 0.0
    cfg.train_dataloader.dataset.data_prefix.img = str(coco_root.val_dir)
    cfg.test_dataloader.dataset.data_prefix.img = str(coco_root.val_dir)
    cfg.model.backbone.init_cfg = None
    cfg.model.rpn_head.sampler.num = cfg.model.roi_head.sampler.num = EVERYTHING
    # Fewer RoIs in training; the shipped numbers of the first version are tested in test_detections.
    cfg.model.rpn_head.update(pre_nms_train=300, post_nms_train=version.proposals_train)
    cfg.model.rpn_head.update(pre_nms_test=1000, post_nms_test=version.proposals_test)
    return cfg


@pytest.fixture(scope='module')
def reference(photos: list[Photo], version: Version) -> TorchvisionFasterRCNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = version.build(
            min_size=version.sizes[0],
            max_size=version.sizes[1],
            rpn_batch_size_per_image=EVERYTHING,
            box_batch_size_per_image=EVERYTHING,
            rpn_pre_nms_top_n_train=300,
            rpn_post_nms_top_n_train=version.proposals_train,
            rpn_post_nms_top_n_test=version.proposals_test,
        )
        calibrate(model, [photo.image for photo in photos])
    return model


@pytest.fixture
def twins(reference: TorchvisionFasterRCNN, cfg: Config) -> Iterator[tuple[TorchvisionFasterRCNN, FasterRCNN]]:
    reference = copy.deepcopy(reference)
    model = DETECTORS.build(cfg.model)
    model.load_state_dict(convert_state_dict(reference.state_dict()), strict=True)
    reference.train()
    for norm in (m for m in reference.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eval().requires_grad_(False)
    yield reference, model.train()


def batch_of(cfg: Config, photos: list[Photo]) -> dict:
    """The same images through frdet's data set and training pipeline."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    index = {Path(dataset.get_data_info(i)['img_path']).name: i for i in range(len(dataset))}
    return pseudo_collate([dataset[index[photo.path.name]] for photo in photos])


@torch.no_grad()
def test_detections(
    reference: TorchvisionFasterRCNN, cfg: Config, photos: list[Photo], version: Version, tmp_path: Path
) -> None:
    """From a checkpoint as torchvision saves it, and from the files of the images."""
    torch.save(reference.state_dict(), tmp_path / 'torchvision.pth')
    model = init_detector(cfg, tmp_path / 'torchvision.pth', device='cpu')
    found = inference_detector(model, [photo.path for photo in photos])
    # One at a time on both sides: what an image is padded to, which its neighbours decide, changes its features.
    wanted = [reference.eval()([photo.image])[0] for photo in photos]
    for sample, expected in zip(found, wanted, strict=True):
        assert_same_detections(sample.pred_instances, expected, version.pixels)


def assert_same_detections(found: InstanceData, expected: dict[str, Tensor], pixels: float) -> None:
    """One for one: the same label, within ``pixels`` and 1e-4 of the score. Scores that near may swap places."""
    assert len(found) == len(expected['scores']) > 5
    distance = (found.bboxes[:, None] - expected['boxes']).abs().amax(dim=2)
    distance += (found.scores[:, None] - expected['scores']).abs() * 100
    distance[found.labels[:, None] + 1 != expected['labels']] = torch.inf
    nearest = distance.argmin(dim=1)
    assert len(nearest.unique()) == len(found)
    torch.testing.assert_close(found.bboxes, expected['boxes'][nearest], atol=pixels, rtol=0)
    torch.testing.assert_close(found.scores, expected['scores'][nearest], atol=1e-4, rtol=0)
    assert torch.equal(found.labels + 1, expected['labels'][nearest])


@torch.no_grad()
def test_losses(twins: tuple[TorchvisionFasterRCNN, FasterRCNN], cfg: Config, photos: list[Photo]) -> None:
    reference, model = twins
    losses = model(**model.data_preprocessor(batch_of(cfg, photos)), mode='loss')
    expected = reference([p.image for p in photos], [p.target for p in photos])
    assert losses['rpn_num_pos'] > 1 and losses['roi_num_pos'] > 1
    for name, other in LOSSES.items():
        assert losses[name].item() == pytest.approx(expected[other].item(), rel=1e-4), name


def test_gradients_and_steps(
    twins: tuple[TorchvisionFasterRCNN, FasterRCNN], cfg: Config, photos: list[Photo], version: Version
) -> None:
    """In float64, from the same pixels: a difference of 1e-6 in these, or of the order of a sum in float32, puts one
    activation in a million on the other side of a ReLU's corner, and changes gradients by the root of that.
    """
    reference, model = (twin.double() for twin in twins)
    photos = photos[: version.photos // 2]
    batch = model.data_preprocessor(batch_of(cfg, photos))
    seen = reference.transform([p.image for p in photos])[0].tensors
    torch.testing.assert_close(batch['inputs'], seen, atol=1e-5, rtol=0)
    batch['inputs'] = seen.double()
    reference.transform.forward = in_float32(reference.transform.forward)
    before = copy.deepcopy(model.state_dict())
    optimizers = [
        torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=0.0002, momentum=0.9, weight_decay=1e-4)
        for twin in twins
    ]
    for step in range(version.steps):
        losses = model(**copy.deepcopy(batch), mode='loss')
        expected = reference([p.image for p in photos], [p.target for p in photos])
        totals = sum(expected.values()), sum(losses[name] for name in LOSSES)
        for total, optimizer in zip(totals, optimizers, strict=True):
            optimizer.zero_grad()
            total.backward()
        if step == 0:
            for name, other in LOSSES.items():
                assert losses[name].item() == pytest.approx(expected[other].item(), rel=1e-5), name
            assert_close(gradients_of(model), to_frdet(gradients_of(reference)))
        for optimizer in optimizers:
            optimizer.step()
    after = {k: v for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert set(after) == {k for k, p in model.named_parameters() if p.requires_grad}
    assert_close(after, {k: v for k, v in convert_state_dict(reference.state_dict()).items() if k in after})


def in_float32(transform: Callable) -> Callable:
    """Images are resized in float32 in use; what comes after is float64 here."""

    def forward(images: list[Tensor], targets: list[dict]) -> tuple[ImageList, list[dict]]:
        batch, targets = transform(images, targets)
        return ImageList(batch.tensors.double(), batch.image_sizes), in_double([], targets)[1]

    return forward


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.norm() > 0, name
        assert (found[name] - value).norm() / value.norm() < 1e-3, name
