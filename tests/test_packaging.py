"""The installation: what the package declares, what its wheel holds, and what the Makefile and CI run."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import frdet

ROOT = Path(__file__).parents[1]
REQUIREMENTS = [Requirement(line) for line in metadata.requires('frdet') or []]


def _pins() -> dict[str, Requirement]:
    lines = (line for line in (ROOT / 'constraints.txt').read_text().splitlines() if not line.startswith('#'))
    return {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}


def test_installed_metadata():
    about = metadata.metadata('frdet')
    assert about['Version'] == frdet.__version__
    assert about['Requires-Python'] == '>=3.10'
    assert 'Apache' in (ROOT / 'LICENSE').read_text().splitlines()[1]


def test_no_requirement_has_an_upper_bound():
    bounds = [clause for requirement in REQUIREMENTS for clause in requirement.specifier]
    assert bounds
    assert {clause.operator for clause in bounds} == {'>='}


def test_every_requirement_has_a_tested_version_in_range():
    pins = _pins()
    for requirement in REQUIREMENTS:
        if requirement.name == 'frdet':
            continue
        (version,) = pins[canonicalize_name(requirement.name)].specifier
        assert version.operator == '=='
        assert requirement.specifier.contains(version.version), requirement


#: Declared, and used through another package or by its name in a config.
INDIRECT = {
    'addict': "MMEngine's Config",
    'mmcv-lite': 'transforms in configs',
    'onnx': "torch's exporter",
    'tensorboard': 'torch.utils.tensorboard',
}
#: Extras that hold tools, which nothing imports.
TOOLS = ('test', 'docs', 'lint', 'dev', 'loggers')


def test_what_is_imported_is_declared_and_what_is_declared_is_used():
    text = (ROOT / 'pyproject.toml').read_text()
    lists = dict(re.findall(r'^(\w+) = (\[.*?\]$)', text, re.M | re.S))
    extras = text[text.index('[project.optional-dependencies]') :].split('\n\n')[0]
    lines = [lists['dependencies'], *(line for line in extras.splitlines()[1:] if not line.startswith(TOOLS))]
    declared = {canonicalize_name(Requirement(name).name) for line in lines for name in re.findall(r'"(.+?)"', line)}
    imported = set()
    for path in (*(ROOT / 'frdet').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported.update(alias.name.split('.')[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split('.')[0])
    own = {'frdet', *(path.stem for path in (ROOT / 'tools').iterdir())}
    providers = metadata.packages_distributions()
    used = {providers.get(name, [name])[0] for name in imported - own - sys.stdlib_module_names}
    assert {*map(canonicalize_name, used), *INDIRECT} == declared


def test_pre_commit_uses_the_tested_versions():
    pins = _pins()
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    dependencies = [d for repo in config['repos'] for hook in repo['hooks'] for d in hook['additional_dependencies']]
    assert dependencies
    for requirement in map(Requirement, dependencies):
        assert requirement.specifier == pins[requirement.name].specifier


def test_building_asks_for_no_torch_and_no_pkg_resources():
    build_system = re.search(r'^\[build-system\]$(.*?)^\[', (ROOT / 'pyproject.toml').read_text(), re.M | re.S)
    assert build_system
    requires = re.search(r'requires = \[(.*?)\]', build_system[1], re.S)
    assert requires and 'torch' not in requires[1]
    assert 'pkg_resources' not in (ROOT / 'setup.py').read_text()


def test_wheel_holds_every_module_and_the_licence(tmp_path: Path):
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    for name in ('frdet', 'ops', 'tests'):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__', '*.so'))
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-w', str(tmp_path), source]
    # Compiling the operators is tested where they are.
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, 'FRDET_NO_EXT': '1'})
    (wheel,) = tmp_path.glob('frdet-*.whl')
    shutil.unpack_archive(wheel, tmp_path / 'unpacked', format='zip')
    unpacked = tmp_path / 'unpacked'
    for pattern in ('*.py', 'templates/*'):
        in_wheel = {str(path.relative_to(unpacked)) for path in unpacked.rglob(pattern)}
        assert in_wheel == {str(path.relative_to(ROOT)) for path in (ROOT / 'frdet').rglob(pattern)}
        assert in_wheel
    assert list(unpacked.glob('frdet-*.dist-info/**/LICENSE'))


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in (ROOT / 'frdet').rglob('*.py')}
    assert [folder for folder in folders if not (folder / '__init__.py').is_file()] == []


def _steps(target: str) -> list[str]:
    """The commands that ``make target`` would run with everything out of date."""
    command = ['make', '--always-make', '--dry-run', '--no-print-directory', target]
    environment = {name: value for name, value in os.environ.items() if name not in ('MAKEFLAGS', 'MFLAGS')}
    ran = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ('target', 'in_order'),
    [
        (
            'demo',
            [
                *('-m venv', 'pip install', '-e ', 'frdet.datasets.shapes', 'tools/train.py', '--overwrite'),
                *('tools/test.py', '--show-dir', 'tools/report.py', 'Open '),
            ],
        ),
        ('test', ['-m venv', 'pip install', '-e ', 'sphinx-build', 'ruff check', 'mypy', 'lint-imports', '-m pytest']),
    ],
)
def test_make_does_the_set_up_first(target: str, in_order: list[str]):
    steps = '\n'.join(_steps(target))
    places = [steps.find(step) for step in in_order]
    assert -1 not in places, steps
    assert places == sorted(places), steps


def test_ci_runs_make_test_on_the_sibling_data(tmp_path: Path):
    checkout, programs = tmp_path / 'a checkout', tmp_path / 'bin'
    (checkout / '.ci').mkdir(parents=True)
    programs.mkdir()
    shutil.copy(ROOT / '.ci' / 'run', checkout / '.ci')
    make = programs / 'make'
    make.write_text('#!/bin/sh\necho "$PWD|$FRDET_DATA_ROOT|$*"\nexit 3\n')
    make.chmod(0o755)
    environment = {**os.environ, 'PATH': f'{programs}{os.pathsep}{os.environ["PATH"]}'}
    ran = subprocess.run([checkout / '.ci' / 'run'], cwd='/', env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == f'{checkout}|{tmp_path}/shared/data/coco-mini/|test'
    assert ran.returncode == 3
