"""Explains a training step, a run, a data set and the cost of a detector. No other package imports this one.

The import only registers ``ReportHook``. jinja2 and matplotlib are imported when a page or a plot is drawn.
"""

from frdet.insight.hook import ReportHook

__all__ = ['ReportHook']
