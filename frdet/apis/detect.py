"""A trained detector for images of users, with pictures, tables and COCO results of the detections."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import PIL.Image
import torch
from mmengine.config import Config

from frdet.apis.classes import category_ids
from frdet.apis.images import ChannelOrder, Image, batches, is_single, prepare
from frdet.apis.inference import init_detector, pipeline_of, predict
from frdet.datasets.annotations import Id
from frdet.datasets.classes import enumerate_names
from frdet.datasets.masks import as_coco, decode_rle, encode_mask
from frdet.errors import BrokenImageError, ConfigError, DataError, did_you_mean
from frdet.visualization.drawing import READABLE_SIDE, draw_boxes, save_image


class CategoryIds:
    """The category ids of a detector's classes. They are read when asked for: a file may be large."""

    def __init__(self, model: Any):
        self._cfg, self._meta = model.cfg, model.dataset_meta

    @functools.cached_property
    def ids(self) -> list[Id | None]:
        """One for every class: those in the checkpoint or ONNX file, or else ``frdet.apis.classes.category_ids``."""
        return list(self._meta.get('category_ids') or category_ids(self._cfg, self._meta['classes']))


class _Decoded(Sequence[np.ndarray]):
    """Masks (H, W) uint8 that are decoded one by one, because all together may take gigabytes.

    Args:
        rles: COCO's compressed RLE of each.
    """

    def __init__(self, rles: Sequence[dict[str, Any]]):
        self._rles = rles

    def __len__(self) -> int:
        return len(self._rles)

    def __getitem__(self, index: Any) -> Any:
        rle = self._rles[index]
        return decode_rle({**rle, 'counts': rle['counts'].encode()})


CORNERS = ('x1', 'y1', 'x2', 'y2')


@dataclass(frozen=True, eq=False, repr=False)
class Detected:
    """The detections in one image. A notebook shows them as a picture, ``print`` as a table; ``len`` counts them.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) float32, xyxy in pixels of the image, sorted by falling score.
        scores: (n,) float32.
        labels: (n,) int64, positions in ``classes``.
        classes: names of all labels.
        number: position of the image among the given ones.
        path: the file of the image; None if the image was given in another form.
        categories: the category ids of ``classes``; None numbers them from 1.
        segmentations: the masks as COCO's compressed RLE, which take little memory; None if the detector has no masks.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    number: int = 0
    path: str | None = None
    categories: CategoryIds | None = None
    segmentations: Sequence[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        found = ', '.join(f'{self.classes[k]} {s:.2f}' for k, s in zip(self.labels[:5], self.scores, strict=False))
        more = ', ...' if len(self) > 5 else ''
        height, width = self.image.shape[:2]
        return f'Detected({len(self)} in {width}x{height} pixels: {found or "nothing"}{more})'

    def __str__(self) -> str:
        rows = [['name', 'score', *CORNERS]]
        for box, score, label in self._values():
            rows.append([self.classes[label], f'{score:.3f}', *(f'{value:.1f}' for value in box)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ['  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        return '\n'.join(lines)

    @property
    def masks(self) -> np.ndarray | None:
        """(n, H, W) bool, decoded at each call: the pixels of each object. None if the detector has no masks."""
        if self.segmentations is None:
            return None
        masks = np.zeros((len(self), *self.image.shape[:2]), dtype=np.uint8)
        for mask, pixels in zip(masks, _Decoded(self.segmentations), strict=True):
            mask[...] = pixels
        return masks.view(bool)

    def draw(self, min_long_side: int = READABLE_SIDE) -> np.ndarray:
        """The image with its boxes and masks, uint8 RGB. A small image is enlarged until the names can be read."""
        return draw_boxes(
            self.image, self.boxes, self.labels, self.scores, self.classes,
            masks=None if self.segmentations is None else _Decoded(self.segmentations), min_long_side=min_long_side,
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the picture of ``draw`` in the format of the ending, such as .jpg or .png. A former file is replaced.

        Raises:
            DataError: ``path`` is the file of the image itself, has no such ending, or cannot be written.
        """
        if self.path is not None and os.path.realpath(path) == os.path.realpath(self.path):
            raise DataError(f'{path} is the image itself, and would be overwritten: choose another path')
        try:
            save_image(self.draw(), path)
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or error
            raise DataError(
                f'{path} cannot be written ({reason}): expected an existing folder, and an ending such as .jpg or .png'
            ) from None

    def to_table(self) -> list[dict[str, Any]]:
        """A row for each detection, as ``pandas.DataFrame`` or ``csv.DictWriter`` take it.

        Its keys are ``image`` (its path, or else its number), ``name``, ``score``, ``x1``, ``y1``, ``x2``, ``y2``.
        """
        image = self.number if self.path is None else self.path
        return [
            {'image': image, 'name': self.classes[label], 'score': score, **dict(zip(CORNERS, box, strict=True))}
            for box, score, label in self._values()
        ]

    def to_coco(
        self, image_id: Id | None = None, category_ids: Sequence[Id | None] | None = None, **more: Any
    ) -> list[dict[str, Any]]:
        """Records in the form of COCO's results, with ``segmentation`` if the detector has masks.

        Args:
            image_id: image id of all records; None takes ``number``.
            category_ids: one for every class; None takes those of ``categories``. Detections of a class whose id is
                None are left out.
            more: further entries of each record.
        """
        ids = category_ids
        if ids is None:
            ids = range(1, len(self.classes) + 1) if self.categories is None else self.categories.ids
        masks = [{}] * len(self) if self.segmentations is None else [{'segmentation': r} for r in self.segmentations]
        return [
            {
                'image_id': self.number if image_id is None else image_id,
                'category_id': ids[label],
                'bbox': [x1, y1, x2 - x1, y2 - y1],
                'score': score,
                'category_name': self.classes[label],
                **mask,
                **more,
            }
            for ((x1, y1, x2, y2), score, label), mask in zip(self._values(), masks, strict=True)
            if ids[label] is not None
        ]

    def _values(self) -> Iterator[tuple[list[float], float, int]]:
        return zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)

    def _repr_png_(self) -> bytes | None:
        return PIL.Image.fromarray(self.draw())._repr_png_()


class DetInferencer:
    """A detector for files, PIL images, arrays or tensors, in batches: ``DetInferencer('epoch_12.pth')``.

    Arrays and tensors are BGR, like OpenCV's, unless ``channel_order='rgb'`` is given. Pictures of the results are RGB.

    Args:
        config, checkpoint, device, cfg_options, amp: see ``init_detector``. A checkpoint of frdet or an ONNX file may
            stand alone, in the place of the config.
        score_thr: detections with a lower score are left out, also those below the config's own threshold.
        classes: names of the classes to keep; None keeps all.

    Raises:
        ConfigError: see ``init_detector``; or a class is unknown, or the threshold is not between 0 and 1.
        CheckpointError, ExportError: see ``init_detector``.
    """

    def __init__(
        self,
        config: str | Path | Config | None = None,
        checkpoint: str | Path | None = None,
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
        self._categories = CategoryIds(model)
        if unknown := [name for name in classes or () if name not in self.classes]:
            hint = did_you_mean(unknown[0], self.classes) or f'the model has {enumerate_names(list(self.classes))}'
            raise ConfigError(f'No class is named {unknown[0]!r}: {hint}')
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
        """The category id of every class, as ``CategoryIds.ids``."""
        return self._categories.ids

    def _detect(self, batch: list[tuple[int, str | None, np.ndarray, dict[str, Any]]]) -> Iterator[Detected]:
        numbers, paths, pictures, data = zip(*batch, strict=True)
        samples = predict(self.model, data)
        for number, path, picture, sample in zip(numbers, paths, pictures, samples, strict=True):
            found = sample.pred_instances
            keep = (found.scores >= self.score_thr) & torch.isin(found.labels, self._kept.to(found.labels.device))
            boxes, scores = (found[key][keep].float().cpu().numpy() for key in ('bboxes', 'scores'))
            labels = found.labels[keep].cpu().numpy()
            segmentations: Any = None
            if 'masks' in found:
                segmentations = [as_coco(encode_mask(mask)) for mask in found.masks[keep].cpu().numpy()]
            yield Detected(picture, boxes, scores, labels, self.classes, number, path, self._categories, segmentations)


def _through(steps: Sequence[Callable], results: Any) -> tuple[int, str | None, np.ndarray, dict[str, Any]]:
    """Number and path of the image, its pixels (H, W, 3) uint8 RGB as loaded, and the result of all ``steps``."""
    number, path = results['img_id'], results.get('img_path')
    pixels: Any = None
    for step in steps:
        results = step(results)
        if pixels is None and 'img' in results:
            # A copy, because the next frame of a video may use the same memory, and a transform may write to it.
            pixels = np.ascontiguousarray(results['img'][..., ::-1])
    return number, path, pixels, results
