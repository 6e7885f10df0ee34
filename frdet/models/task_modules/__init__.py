"""Parts of heads that have no weights: anchors, matching, sampling, box coding, selection."""

from frdet.models.task_modules.anchor_generator import AnchorGenerator
from frdet.models.task_modules.assigners import AssignResult, BaseAssigner, MaxIoUAssigner
from frdet.models.task_modules.box_coder import DeltaXYWHCoder
from frdet.models.task_modules.samplers import BaseSampler, IoUBalancedSampler, RandomSampler, SampleResult
from frdet.models.task_modules.selection import Detections, Proposals, best_scores, select_batch, select_proposals

__all__ = [
    'AnchorGenerator',
    'AssignResult',
    'BaseAssigner',
    'BaseSampler',
    'DeltaXYWHCoder',
    'Detections',
    'IoUBalancedSampler',
    'MaxIoUAssigner',
    'Proposals',
    'RandomSampler',
    'SampleResult',
    'best_scores',
    'select_batch',
    'select_proposals',
]
