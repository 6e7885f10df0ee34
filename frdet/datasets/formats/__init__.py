"""Readers of annotation formats. Each reads a file or a folder and returns ``Annotations``."""
