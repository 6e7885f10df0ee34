"""A trained detector on files: pictures, videos, and a JSON of what was found."""

import difflib
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from frdet.apis.inference import inference_detector, init_detector
from frdet.datasets.coco_json import read_coco
from frdet.datasets.transforms.loading import read_image
from frdet.errors import ConfigError, DataError
from frdet.visualization.drawing import READABLE_SIDE, draw_boxes


class Detected(NamedTuple):
    """What was found in one image; a notebook shows it drawn.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) float32, xyxy in pixels of the image, best score first.
        scores: (n,) float32.
        labels: (n,) int64, places in ``classes``.
        classes: names of all labels.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]

    def __repr__(self) -> str:
        found = ', '.join(f'{self.classes[k]} {s:.2f}' for k, s in zip(self.labels[:5], self.scores, strict=False))
        more = ', ...' if len(self.labels) > 5 else ''
        height, width = self.image.shape[:2]
        return f'Detected({len(self.labels)} in {width}x{height} pixels: {found or "nothing"}{more})'

    def draw(self, min_long_side: int = READABLE_SIDE) -> np.ndarray:
        """The image with its boxes, uint8 RGB; a small one is enlarged until its names can be read."""
        return draw_boxes(self.image, self.boxes, self.labels, self.scores, self.classes, min_long_side=min_long_side)

    def to_coco(self, image_id: int, category_ids: Sequence[int], **more: Any) -> list[dict[str, Any]]:
        """Records in the form of COCO's results; ``category_ids`` has one for every class, ``more`` joins each."""
        return [
            {
                'image_id': image_id,
                'category_id': category_ids[label],
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'score': score,
                'category_name': self.classes[label],
                **more,
            }
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
            )
        ]

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        Image.fromarray(self.draw()).save(data, 'png')
        return data.getvalue()


class DetInferencer:
    """A detector that takes files or arrays, in batches.

    Args:
        config, checkpoint, device, cfg_options, amp: as of ``init_detector``.
        score_thr: detections below it are left out; the config's own threshold holds, too.
        classes: names of the classes to keep, all where None.

    Raises:
        ConfigError: as ``init_detector``; or a class is unknown, or a threshold is no probability.
        CheckpointError: the checkpoint is unreadable or does not fit.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | torch.device | None = None,
        *,
        cfg_options: dict[str, Any] | list[str] | None = None,
        amp: bool = False,
        score_thr: float = 0.3,
        classes: Sequence[str] | None = None,
    ):
        if not 0 <= score_thr <= 1:
            raise ConfigError(f'The score threshold is {score_thr}: expected a number from 0 to 1')
        model: Any = init_detector(config, checkpoint, device, cfg_options, amp)
        self.model = model
        self.classes: tuple[str, ...] = tuple(model.dataset_meta['classes'])
        self.score_thr = score_thr
        self._kept = self._labels(classes)

    def __call__(self, images: Sequence[str | Path | np.ndarray], batch_size: int = 1) -> list[Detected]:
        """Detections in each of ``images``: paths, or arrays (H, W, 3) uint8 RGB.

        Raises:
            DataError: an image is missing, broken, or no such array.
        """
        return list(self.stream((read_rgb(i) if isinstance(i, (str, Path)) else i for i in images), batch_size))

    def stream(self, images: Iterable[np.ndarray], batch_size: int = 1) -> Iterator[Detected]:
        """As a call, for arrays that come one by one, such as the frames of a video."""
        rest = iter(images)
        while batch := list(itertools.islice(rest, batch_size)):
            bgr = [image[..., ::-1] if image.ndim == 3 else image for image in batch]
            for image, sample in zip(batch, inference_detector(self.model, bgr, batch_size), strict=True):
                found = sample.pred_instances
                keep = (found.scores >= self.score_thr) & torch.isin(found.labels, self._kept.to(found.labels.device))
                boxes, scores = (found[key][keep].float().cpu().numpy() for key in ('bboxes', 'scores'))
                yield Detected(image, boxes, scores, found.labels[keep].cpu().numpy(), self.classes)

    def category_ids(self) -> list[int]:
        """The id of every class in the config's test annotations; label + 1 where there are none, or other classes."""
        dataset = self.model.cfg.test_dataloader.dataset
        try:
            known = read_coco(Path(dataset.get('data_root', ''), dataset.get('ann_file', ''))).categories
        except DataError:
            known = {}
        there = all(name in known for name in self.classes)
        return [known[name] if there else label + 1 for label, name in enumerate(self.classes)]

    def _labels(self, names: Sequence[str] | None) -> torch.Tensor:
        for name in names or ():
            if name not in self.classes:
                near = difflib.get_close_matches(name, self.classes, n=3) or list(self.classes)[:10]
                raise ConfigError(f'No class is named {name!r}: did you mean {", ".join(near)}?')
        return torch.tensor([i for i, name in enumerate(self.classes) if names is None or name in names])


def read_rgb(path: str | Path) -> np.ndarray:
    """The image at ``path``, (H, W, 3) uint8 RGB.

    Raises:
        BrokenImageError: it is missing or cannot be decoded.
    """
    return np.ascontiguousarray(read_image(str(path))[..., ::-1])
