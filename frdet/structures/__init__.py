"""What travels through the framework: functions on boxes, and the sample that carries one image's truth and results."""

from frdet.structures.boxes import box_area, box_iou, clip_boxes, flip_boxes, scale_boxes
from frdet.structures.coordinates import check_scale, to_network, to_original
from frdet.structures.sample import DetDataSample, GroundTruth, batch_ground_truth, check_truth

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
    'scale_boxes',
    'to_network',
    'to_original',
]
