"""Faster R-CNN (Ren et al. 2015) with a Feature Pyramid Network. Start reading here."""

from typing import Any, NoReturn

import torch
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from frdet.errors import ExportError
from frdet.models.compiling import compiled
from frdet.models.preprocessor import DetPreprocessor
from frdet.registry import BACKBONES, DENSE_HEADS, DETECTORS, NECKS, PREPROCESSORS, ROI_HEADS, SCOPE
from frdet.structures import DetDataSample, batch_ground_truth, check_scale, check_truth, to_original


@DETECTORS.register_module()
class FasterRCNN(BaseModel):
    """Two stages on shared features: a region proposal network, then a classifier and box refiner on its proposals.

    Args:
        backbone: images (N, 3, H, W) -> feature maps.
        neck: feature maps -> feature maps, all of one channel count; None: the backbone's are used.
        rpn_head: feature maps -> proposals.
        roi_head: feature maps and proposals -> detections.
        data_preprocessor: the data loader's batch -> network input.
        compile: run backbone and neck through ``torch.compile``, which takes a minute or two at the first batch; as
            they are, with a warning, where there is no C++ compiler.
        init_cfg: MMEngine's.
    """

    def __init__(
        self,
        *,
        backbone: dict,
        neck: dict | None,
        rpn_head: dict,
        roi_head: dict,
        data_preprocessor: dict,
        compile: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(PREPROCESSORS.build(data_preprocessor), init_cfg)
        self.backbone = BACKBONES.build(backbone)
        self.neck = NECKS.build(neck) if neck is not None else None
        self.rpn_head = DENSE_HEADS.build(rpn_head)
        self.roi_head = ROI_HEADS.build(roi_head)
        self.compile_features = compile
        if isinstance(self.data_preprocessor, DetPreprocessor):
            self.data_preprocessor.num_classes = self.num_classes
        self.to(memory_format=torch.channels_last)

    @property
    def num_classes(self) -> int | None:
        """K of the second stage; None if its box head does not say."""
        return getattr(getattr(self.roi_head, 'bbox_head', None), 'num_classes', None)

    def init_weights(self) -> None:
        """Load what the parts' ``init_cfg`` name. Parts draw their random weights when they are built."""
        with DefaultScope.overwrite_default_scope(SCOPE):
            super().init_weights()

    def forward(self, inputs: Tensor, data_samples: list[DetDataSample] | None = None, mode: str = 'tensor') -> Any:
        """MMEngine's entry: ``mode`` 'loss', 'predict' or 'tensor' (feature maps and the RPN's raw outputs)."""
        if mode == 'loss':
            return self.loss(inputs, data_samples or [])
        if mode == 'predict':
            return self.predict(inputs, data_samples or [])
        if mode == 'tensor':
            features = self.extract_features(inputs)
            return features, self.rpn_head(features)
        raise ValueError(f"mode is {mode!r}, expected 'loss', 'predict' or 'tensor'")

    def extract_features(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) -> feature maps, finest first.

        Raises:
            ExportError: ``torch.jit.trace`` runs it.
        """
        if torch.jit.is_tracing():
            _refuse_torchscript()
        run = compiled(_features) if self.compile_features else _features
        return run(self.backbone, self.neck, inputs)

    def __prepare_scriptable__(self) -> NoReturn:
        """What ``torch.jit.script`` calls first."""
        _refuse_torchscript()

    def loss(self, inputs: Tensor, data_samples: list[DetDataSample]) -> dict[str, Tensor]:
        """Losses of a batch of normalised images (N, 3, H, W) with their ground truth.

        Returns:
            Scalars: loss_rpn_cls, loss_rpn_bbox, loss_cls, loss_bbox, and figures that are not trained on.

        Raises:
            DataError: the ground truth cannot be trained on; see ``check_truth``.
        """
        check_truth(data_samples, self.num_classes)
        truth = batch_ground_truth(data_samples)
        if truth.labels.is_cuda and self.num_classes is not None:  # a check on the GPU itself, which nothing waits for
            legal = (truth.labels >= 0) & (truth.labels < self.num_classes)
            torch._assert_async(legal.all(), f'Ground truth has labels outside 0 to {self.num_classes - 1}')
        features = self.extract_features(inputs)
        rpn_losses, proposals = self.rpn_head.loss(features, truth, _image_sizes(inputs, data_samples))
        roi_losses = self.roi_head.loss(features, proposals, truth)
        return {**rpn_losses, **roi_losses}

    def predict(self, inputs: Tensor, data_samples: list[DetDataSample]) -> list[DetDataSample]:
        """Detections in a batch of normalised images (N, 3, H, W).

        Returns:
            ``data_samples`` with ``pred_instances``: boxes in pixels of the original image, best score first.

        Raises:
            DataError: a sample's shapes and scale contradict each other; see ``to_original``.
        """
        for sample in data_samples:
            check_scale(sample)
        sizes = _image_sizes(inputs, data_samples)
        features = self.extract_features(inputs)
        proposals = self.rpn_head.predict(features, sizes)
        detections = self.roi_head.predict(features, proposals, sizes)
        for sample, found in zip(data_samples, detections, strict=True):
            sample.pred_instances = to_original(
                found, sample.img_shape, sample.ori_shape, flip=bool(sample.get('flip', False))
            )
        return data_samples


def _refuse_torchscript() -> NoReturn:
    raise ExportError(
        'TorchScript cannot hold a detector: a trace keeps the image size and the number of boxes of its example. '
        'Export it to ONNX or with torch.export: tools/export_onnx.py, or frdet.apis.export_detector'
    )


def _features(backbone: nn.Module, neck: nn.Module | None, inputs: Tensor) -> tuple[Tensor, ...]:
    features = backbone(inputs)
    return neck(features) if neck is not None else features


def _image_sizes(inputs: Tensor, data_samples: list[DetDataSample]) -> Tensor:
    """(N, 2) float32: height and width of each image before padding."""
    return torch.tensor([s.img_shape[:2] for s in data_samples], dtype=torch.float32).to(
        inputs.device, non_blocking=True
    )
