"""What only explains is not loaded by what trains: in the sources, and in a process that trains."""

import ast
import subprocess

from tests import warm
from tests.engine.toy import ROOT

#: Packages for pages and plots, and where a module may import them when it is imported. MMEngine's Runner has OpenCV.
DRAWING = {'matplotlib': 'frdet/insight/', 'jinja2': 'frdet/insight/', 'cv2': 'nowhere'}

TRAIN = """
import sys
for name in [name for name in sys.modules if name.split('.')[0] in ('matplotlib', 'jinja2')]:
    del sys.modules[name]  # the process that this one was forked from has them

def loaded():
    return sorted({name.split('.')[0] for name in sys.modules} & {'matplotlib', 'jinja2'})

import frdet.apis
print('import', loaded())
from tests.engine import toy
from mmengine.runner import Runner
cfg = toy.config(sys.argv[1], **{'train_cfg.max_epochs': 1})
runner = Runner.from_cfg(cfg)
runner.train()
print('training', runner.iter, loaded(), 'frdet.insight.report' in sys.modules)
"""


def imported_with(path):
    """Top-level packages that a module imports when it is imported itself, not in one of its functions."""
    nodes = list(ast.parse(path.read_text()).body)
    found = set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split('.')[0])
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            nodes += ast.iter_child_nodes(node)
    return found


def test_only_insight_imports_what_draws_pages():
    paths = {str(path.relative_to(ROOT)): imported_with(path) for path in (ROOT / 'frdet').rglob('*.py')}
    assert 'matplotlib' in paths['frdet/insight/plots.py']
    wrong = [
        (path, package)
        for path, packages in paths.items()
        for package in packages & set(DRAWING)
        if not path.startswith(DRAWING[package])
    ]
    assert wrong == []


def test_importing_insight_draws_nothing():
    """The registry of hooks imports it in every training."""
    for name in ('__init__', 'hook', 'store'):
        assert not imported_with(ROOT / f'frdet/insight/{name}.py') & set(DRAWING)


def test_a_training_without_report(tmp_path):
    done = subprocess.run(
        [warm.python(), '-c', TRAIN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(('import', 'training'))]
    assert lines == ['import []', 'training 4 [] False'], done.stderr
