"""Finding all that is wrong with a data set, where reading it stops at the first mistake."""

from frdet.datasets.checking.data import DataReport, check_data

__all__ = ['DataReport', 'check_data']
