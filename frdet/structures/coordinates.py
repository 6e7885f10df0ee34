"""From the pixels of the network's input to the pixels of the original image, and back."""

from mmengine.structures import InstanceData

from frdet.errors import DataError
from frdet.structures.boxes import clip_boxes, flip_boxes, scale_boxes
from frdet.structures.sample import DetDataSample


def check_scale(sample: DetDataSample) -> None:
    """Raise DataError for a sample that was cut or padded after loading: only resizing and flipping can be undone."""
    scale = sample.get('scale_factor')
    if scale is None:
        return
    expected = [round(side * factor) for side, factor in zip(sample.ori_shape[:2], scale[::-1], strict=True)]
    if any(abs(found - side) > 1 for found, side in zip(sample.img_shape[:2], expected, strict=True)):
        raise DataError(
            f'{sample.get("img_path") or "An image"}: img_shape is {tuple(sample.img_shape[:2])}, and ori_shape '
            f'{tuple(sample.ori_shape[:2])} times scale_factor {tuple(scale)} is {tuple(expected)} (height, width), so '
            'detections cannot be brought back to the original. A transform that resizes must set all three. Cut and '
            'pad in training only, or set ori_shape to the image size that detections are for'
        )


def to_original(
    found: InstanceData, img_shape: tuple[int, int], ori_shape: tuple[int, int], *, flip: bool = False
) -> InstanceData:
    """Detections in pixels of the network's input -> in pixels of the original image, clipped to it.

    Empty boxes are dropped. Mirroring and resizing are undone, in any order. Cutting and padding are not: a sample does
    not say where the image lies in the input, so it must lie at the top left.

    Args:
        found: ``bboxes`` (n, 4), ``scores``, ``labels``; it is not changed.
        img_shape, ori_shape: (height, width) of the resized and of the original image.
        flip: whether the input is mirrored left to right.
    """
    (height, width), (ori_height, ori_width) = img_shape[:2], ori_shape[:2]
    boxes = flip_boxes(found.bboxes, width) if flip else found.bboxes
    boxes = scale_boxes(boxes, (ori_width / width, ori_height / height))
    boxes = clip_boxes(boxes, boxes.new_tensor([ori_height, ori_width]))
    return found.new(**{**found, 'bboxes': boxes})[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def to_network(
    found: InstanceData, img_shape: tuple[int, int], ori_shape: tuple[int, int], *, flip: bool = False
) -> InstanceData:
    """The inverse of ``to_original``, with the same arguments. No box is clipped or dropped."""
    (height, width), (ori_height, ori_width) = img_shape[:2], ori_shape[:2]
    boxes = scale_boxes(found.bboxes, (width / ori_width, height / ori_height))
    return found.new(**{**found, 'bboxes': flip_boxes(boxes, width) if flip else boxes})
