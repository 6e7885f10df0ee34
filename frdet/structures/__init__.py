"""Functions on boxes and coordinates, and the sample that carries the ground truth and the results of an image."""

from frdet.structures.boxes import box_area, box_iou, clip_boxes, flip_boxes, scale_boxes, to_network, to_original
from frdet.structures.masks import paste_masks
from frdet.structures.sample import DetDataSample, GroundTruth, batch_ground_truth, check_scale, check_truth

__all__ = [
    'DetDataSample',
    'GroundTruth',
    'batch_ground_truth',
    'box_area',
    'box_iou',
    'check_scale',
    'check_truth',
    'clip_boxes',
    'flip_boxes',
    'paste_masks',
    'scale_boxes',
    'to_network',
    'to_original',
]
