"""Follows every annotated object of a data set through a detector, to the stage that lost it."""

from frdet.insight.trace.running import trace_objects

__all__ = ['trace_objects']
