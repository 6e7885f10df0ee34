"""Follows every annotated object of a data set through a detector, to the stage that lost it."""

from frdet.insight.trace.comparing import trace_checkpoints
from frdet.insight.trace.helping import what_would_help
from frdet.insight.trace.model import Summary
from frdet.insight.trace.page import write_trace_page
from frdet.insight.trace.running import trace_objects

__all__ = ['Summary', 'trace_checkpoints', 'trace_objects', 'what_would_help', 'write_trace_page']
