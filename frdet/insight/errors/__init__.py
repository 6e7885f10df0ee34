"""Analysis of an evaluation: matches, errors, curves and label statistics, in numpy and without plots."""

from frdet.insight.errors.curves import F1Curve, class_table, f1_curve, precision_curve
from frdet.insight.errors.errors import KINDS, ErrorSplit, Match, confusion_matrix, match, split_errors
from frdet.insight.errors.results import Detected, Objects, Results, read_results
from frdet.insight.errors.statistics import label_statistics

__all__ = [
    'KINDS',
    'Detected',
    'ErrorSplit',
    'F1Curve',
    'Match',
    'Objects',
    'Results',
    'class_table',
    'confusion_matrix',
    'f1_curve',
    'label_statistics',
    'match',
    'precision_curve',
    'read_results',
    'split_errors',
]
