"""Reports of training runs: a page for one run, a page that compares runs, and the files of every training."""

from frdet.insight.report.comparison_page import write_comparison
from frdet.insight.report.plots import write_files
from frdet.insight.report.training_page import write_page

__all__ = ['write_comparison', 'write_files', 'write_page']
