"""A trained detector for files, PIL images and arrays, with pictures and COCO results of the detections."""

import difflib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import PIL.Image
import torch
from mmengine.config import Config

from frdet.apis.classes import category_ids
from frdet.apis.inference import ChannelOrder, Image, batches, init_detector, is_single, pipeline_of, predict, prepare
from frdet.datasets.annotations import Id
from frdet.errors import BrokenImageError, ConfigError
from frdet.visualization.drawing import READABLE_SIDE, draw_boxes


class Detected(NamedTuple):
    """The detections in one image. A notebook shows them as a picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) float32, xyxy in pixels of the image, sorted by falling score.
        scores: (n,) float32.
        labels: (n,) int64, positions in ``classes``.
        classes: names of all labels.
        number: position of the image among the given ones.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    number: int = 0

    def __repr__(self) -> str:
        found = ', '.join(f'{self.classes[k]} {s:.2f}' for k, s in zip(self.labels[:5], self.scores, strict=False))
        more = ', ...' if len(self.labels) > 5 else ''
        height, width = self.image.shape[:2]
        return f'Detected({len(self.labels)} in {width}x{height} pixels: {found or "nothing"}{more})'

    def draw(self, min_long_side: int = READABLE_SIDE) -> np.ndarray:
        """The image with its boxes, uint8 RGB. A small image is enlarged until the names can be read."""
        return draw_boxes(self.image, self.boxes, self.labels, self.scores, self.classes, min_long_side=min_long_side)

    def to_coco(self, image_id: int, category_ids: Sequence[Id | None], **more: Any) -> list[dict[str, Any]]:
        """Records in the form of COCO's results.

        Args:
            image_id: image id of all records.
            category_ids: one for every class. Detections of a class with None are left out.
            more: further entries of each record.
        """
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
            if category_ids[label] is not None
        ]

    def _repr_png_(self) -> bytes | None:
        return PIL.Image.fromarray(self.draw())._repr_png_()


class DetInferencer:
    """A detector for files, PIL images or arrays, in batches.

    Arrays are BGR, like OpenCV's, unless ``channel_order='rgb'`` is given. Pictures of the results are RGB.

    Args:
        config, checkpoint, device, cfg_options, amp: see ``init_detector``.
        score_thr: detections with a lower score are left out, also those below the config's own threshold.
        classes: names of the classes to keep; None keeps all.

    Raises:
        ConfigError: see ``init_detector``; or a class is unknown, or the threshold is not between 0 and 1.
        CheckpointError: the checkpoint cannot be read or does not fit.
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
        if unknown := [name for name in classes or () if name not in self.classes]:
            near = difflib.get_close_matches(unknown[0], self.classes, n=3) or list(self.classes)[:10]
            raise ConfigError(f'No class is named {unknown[0]!r}: did you mean {", ".join(near)}?')
        self._kept = torch.tensor([i for i, name in enumerate(self.classes) if classes is None or name in classes])

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a path is a str, and an Iterable of str, too
        self, images: Image, batch_size: int = 1, *, channel_order: ChannelOrder = 'bgr'
    ) -> Detected: ...

    @overload
    def __call__(
        self, images: Iterable[Image], batch_size: int = 1, *, channel_order: ChannelOrder = 'bgr'
    ) -> list[Detected]: ...

    def __call__(
        self, images: Image | Iterable[Image], batch_size: int = 1, *, channel_order: ChannelOrder = 'bgr'
    ) -> Detected | list[Detected]:
        """Detections in one image, or in each of several. Arguments and errors are those of ``inference_detector``.

        Returns:
            A ``Detected``, or a list of them for several images.
        """
        found = list(self.stream(images, batch_size, channel_order=channel_order))
        return found[0] if is_single(images) else found

    def stream(
        self,
        images: Image | Iterable[Image],
        batch_size: int = 1,
        *,
        channel_order: ChannelOrder = 'bgr',
        on_broken: Callable[[BrokenImageError], None] | None = None,
    ) -> Iterator[Detected]:
        """Like a call, but for images that come one by one, such as the frames of a video.

        Args:
            images, batch_size, channel_order: see ``inference_detector``.
            on_broken: is called with the error of an image that is missing or cannot be decoded, and the image is
                skipped. None raises the error.
        """
        through = functools.partial(_through, pipeline_of(self.model.cfg).transforms)
        prepared = prepare(images, through, channel_order, on_broken)
        return itertools.chain.from_iterable(map(self._detect, batches(prepared, batch_size)))

    def category_ids(self) -> list[Id | None]:
        """The category id of every class; see ``frdet.apis.classes.category_ids``."""
        return category_ids(self.model.cfg, self.classes)

    def _detect(self, batch: list[tuple[int, np.ndarray, dict[str, Any]]]) -> Iterator[Detected]:
        numbers, pictures, data = zip(*batch, strict=True)
        for number, picture, sample in zip(numbers, pictures, predict(self.model, data), strict=True):
            found = sample.pred_instances
            keep = (found.scores >= self.score_thr) & torch.isin(found.labels, self._kept.to(found.labels.device))
            boxes, scores = (found[key][keep].float().cpu().numpy() for key in ('bboxes', 'scores'))
            yield Detected(picture, boxes, scores, found.labels[keep].cpu().numpy(), self.classes, number)


def _through(steps: Sequence[Callable], results: Any) -> tuple[int, np.ndarray, dict[str, Any]]:
    """The number of the image, its pixels (H, W, 3) uint8 RGB as loaded, and the result of all ``steps``."""
    number: int = results['img_id']
    pixels: Any = None
    for step in steps:
        results = step(results)
        if pixels is None and 'img' in results:
            # A copy, because the next frame of a video may use the same memory, and a transform may write to it.
            pixels = np.ascontiguousarray(results['img'][..., ::-1])
    return number, pixels, results
