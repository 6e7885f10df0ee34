"""Whatever explains: a training step, a run, a data set, what a detector costs. No other package imports this one.

Importing it registers ``ReportHook`` and nothing else; pages and plots bring jinja2 and matplotlib when they are drawn.
"""

from frdet.insight.hook import ReportHook

__all__ = ['ReportHook']
