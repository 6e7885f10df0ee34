"""Readers of annotation formats: each makes ``Annotations`` of a file or a folder, and nothing else."""
