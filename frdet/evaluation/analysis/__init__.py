"""What an evaluation's figures are made of: numpy in, numpy out, no plots."""

from frdet.evaluation.analysis.confusion import confusion_matrix
from frdet.evaluation.analysis.curves import F1Curve, average_precision, class_table, f1_curve, precision_curve
from frdet.evaluation.analysis.errors import KINDS, ErrorSplit, split_errors
from frdet.evaluation.analysis.matching import Match, Pairs, match, overlaps
from frdet.evaluation.analysis.results import Detected, Objects, Results, read_results
from frdet.evaluation.analysis.statistics import label_statistics

__all__ = [
    'KINDS',
    'Detected',
    'ErrorSplit',
    'F1Curve',
    'Match',
    'Objects',
    'Pairs',
    'Results',
    'average_precision',
    'class_table',
    'confusion_matrix',
    'f1_curve',
    'label_statistics',
    'match',
    'overlaps',
    'precision_curve',
    'read_results',
    'split_errors',
]
