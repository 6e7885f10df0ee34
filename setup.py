"""Builds frdet. Metadata and the tools' settings are in pyproject.toml; this file is where compiled code joins."""

from setuptools import setup

# Here and not in pyproject.toml, where setuptools before 77 takes no SPDX name and later ones take nothing else.
setup(license='Apache-2.0')
