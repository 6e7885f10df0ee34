"""The measurements behind tools/benchmark.py, one module for each of its sub-commands."""
