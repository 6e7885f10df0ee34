"""Builds frdet. Metadata and the tools' settings are in pyproject.toml; this file is where compiled code joins."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / 'ops'))

from build import build_or_explain  # noqa: E402


class BuildOps(build_ext):
    """Compiles ops/ into frdet/ops; where it cannot, the installation goes on without."""

    def run(self) -> None:
        in_place = self.inplace or getattr(self, 'editable_mode', False)
        self.libraries_built = build_or_explain((ROOT if in_place else Path(self.build_lib)) / 'frdet/ops')

    def get_outputs(self) -> list[str]:
        return [str(library) for library in getattr(self, 'libraries_built', [])]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class AnyPython(bdist_wheel):
    """The libraries hold no Python: a wheel with them is for one platform, but for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return 'py3', 'none', super().get_tag()[2]


setup(
    license='Apache-2.0',
    # An extension without sources has setuptools run build_ext, and make a wheel for one platform.
    ext_modules=[Extension('frdet.ops.libraries', sources=[])],
    cmdclass={'build_ext': BuildOps, 'bdist_wheel': AnyPython},
)
