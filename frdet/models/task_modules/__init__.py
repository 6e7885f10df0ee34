"""Parts of heads that have no weights: anchors, matching, sampling, box coding, selection."""

from frdet.models.task_modules.anchors import AnchorGenerator, DeltaXYWHCoder
from frdet.models.task_modules.fcos import DistanceCoder, FCOSAssigner
from frdet.models.task_modules.selection import (
    Detections,
    Proposals,
    best_pairs,
    best_scores,
    select_batch,
    select_labelled,
    select_proposals,
)
from frdet.models.task_modules.suppression import NMS, SoftNMS, Suppression
from frdet.models.task_modules.targets import (
    AssignResult,
    BaseAssigner,
    BaseSampler,
    IoUBalancedSampler,
    MaxIoUAssigner,
    OHEMSampler,
    RandomSampler,
    SampleResult,
)

__all__ = [
    'AnchorGenerator',
    'AssignResult',
    'BaseAssigner',
    'BaseSampler',
    'DeltaXYWHCoder',
    'Detections',
    'DistanceCoder',
    'FCOSAssigner',
    'IoUBalancedSampler',
    'MaxIoUAssigner',
    'NMS',
    'OHEMSampler',
    'Proposals',
    'RandomSampler',
    'SampleResult',
    'SoftNMS',
    'Suppression',
    'best_pairs',
    'best_scores',
    'select_batch',
    'select_labelled',
    'select_proposals',
]
