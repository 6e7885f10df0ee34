"""Reports of training runs: a page, a comparison of several, and the files that every training leaves."""

from frdet.visualization.report.files import write_files

__all__ = ['write_files']
