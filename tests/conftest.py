"""Fixtures that every test shares: which data it sees, and global state it cannot leave behind."""

import gc
import json
import logging
import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

# Test processes share the cores. Set before torch is imported, and inherited by the commands that tests start.
if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:
    _threads = max(1, (os.cpu_count() or 1) // int(os.environ['PYTEST_XDIST_WORKER_COUNT']))
    os.environ.setdefault('OMP_NUM_THREADS', str(_threads))

# Also inherited: what tests compute is not kept in the cache of the user.
os.environ.setdefault('FRDET_CACHE', os.path.join(tempfile.gettempdir(), f'frdet-tests-{os.getuid()}'))

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from mmengine.dataset import base_dataset
from mmengine.utils import ManagerMixin

from tests.browser import _chromium, browser  # noqa: F401  # fixtures
from tests.server import server  # noqa: F401  # a fixture

gc.disable()  # until all tests are collected

# MMEngine looks for garbage in the whole process for each data set: a third of the time of tests that train a toy.
base_dataset.gc = SimpleNamespace(collect=lambda: 0)

# `--hypothesis-profile=long` searches a hundred times as long; the option is applied after this line.
_shared = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.register_profile('quick', max_examples=50, **_shared)
settings.register_profile('long', max_examples=5000, **_shared)
settings.load_profile('quick')

TRAIN_ANN = 'annotations/instances_train2017.json'
VAL_ANN = 'annotations/instances_val2017.json'


# Files that take longest, the longest first: begun last, one of them would leave the other test processes idle. `make
# quick` leaves them out.
LONG = (
    'test_docs_commands.py', 'test_examples.py', 'test_own_data_page.py', 'tools/test_benchmark.py', 'test_memory.py',
    'test_overfit.py',
    'ops/test_both_ways.py',
    'tools/test_train_and_test.py', 'apis/export/test_exporting.py',
    'apis/export/test_masks.py', 'apis/export/test_families.py', 'checkpoints/test_against_torchvision.py',
    'tools/test_ablate.py', 'apis/ablation/test_searching.py',
    'engine/hooks/test_stop.py', 'models/test_same_losses.py', 'test_determinism.py', 'tools/test_bad_input.py',
    'tools/test_stop_and_resume.py', 'models/detectors/test_compiling.py', 'tools/test_dist.py', 'apis/test_launch.py',
    'tools/test_detect.py', 'test_configs.py', 'engine/hooks/test_val_loss.py', 'tools/test_convert_checkpoint.py',
    'engine/hooks/test_hang.py', 'insight/trace/test_identity.py',
)  # fmt: skip


@dataclass(frozen=True)
class CocoRoot:
    """A data set in COCO's layout.

    Attributes:
        root: its folder.
        classes: names in label order, which is that of ascending category id.
        is_real: photographs of COCO, rather than the drawn data set.
        train_ann, val_ann: annotation files, relative to ``root``.
        train_prefix, val_prefix: image folders, relative to ``root``.
    """

    root: Path
    classes: tuple[str, ...]
    is_real: bool
    train_ann: str = TRAIN_ANN
    val_ann: str = VAL_ANN
    train_prefix: str = 'train2017/'
    val_prefix: str = 'val2017/'

    @property
    def train_dir(self) -> Path:
        return self.root / self.train_prefix

    @property
    def val_dir(self) -> Path:
        return self.root / self.val_prefix


def _real_root() -> Path | None:
    """FRDET_DATA_ROOT, if there is a data set in it."""
    root = os.environ.get('FRDET_DATA_ROOT')
    return Path(root).resolve() if root and (Path(root) / VAL_ANN).is_file() else None


def pytest_report_header() -> str:
    if root := _real_root():
        return f'data: COCO images in {root}'
    given = os.environ.get('FRDET_DATA_ROOT')
    reason = f'no {VAL_ANN} in FRDET_DATA_ROOT={given}' if given else 'FRDET_DATA_ROOT is not set'
    return f'data: the drawn data set, no COCO images ({reason})'


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))
    for item in items:
        if item.path in places:
            item.add_marker('long')


def pytest_collection_finish() -> None:
    """What all tests share is not looked through again for garbage."""
    gc.enable()
    gc.freeze()


@pytest.fixture(scope='session')
def coco_root(tmp_path_factory: pytest.TempPathFactory) -> CocoRoot:
    """The COCO images in FRDET_DATA_ROOT, or, where there are none, drawn ones in the same layout."""
    root = _real_root()
    is_real = root is not None
    if root is None:
        from frdet.datasets.shapes import write_shapes

        root = write_shapes(tmp_path_factory.mktemp('shapes'), num_train=24, num_val=12)
    categories = json.loads((root / VAL_ANN).read_text())['categories']
    classes = tuple(c['name'] for c in sorted(categories, key=lambda c: c['id']))
    return CocoRoot(root=root, classes=classes, is_real=is_real)


@pytest.fixture(autouse=True)
def _isolated_random_state() -> Iterator[None]:
    """Each test starts from the same seed, whatever ran before it, and leaves the generators as it found them."""
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    deterministic = torch.are_deterministic_algorithms_enabled()
    random.seed(0)
    np.random.seed(0)
    # torch.manual_seed takes a millisecond where CUDA has not begun: it formats the stack for a later error.
    (torch if cuda else torch.default_generator).manual_seed(0)
    yield
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(torch_cpu)
    if cuda:
        torch.cuda.set_rng_state_all(cuda)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    """End the workers of data loaders: in a later test, the garbage collector would wait five seconds for each."""
    yield
    for worker in multiprocessing.active_children():
        worker.terminate()


@pytest.fixture(autouse=True)
def _isolated_mmengine() -> Iterator[None]:
    """Each test starts without MMEngine's global instances: default scope, message hubs, loggers, visualizers."""
    before = {cls: dict(cls._instance_dict) for cls in _managers()}
    for cls in before:
        cls._instance_dict.clear()
    yield
    for cls in _managers():
        for instance in cls._instance_dict.values():
            _close_files(instance)
        cls._instance_dict.clear()
        cls._instance_dict.update(before.get(cls, {}))


def _managers(cls: type = ManagerMixin) -> set[type]:
    return {cls}.union(*(_managers(sub) for sub in cls.__subclasses__()))


def _close_files(instance: object) -> None:
    """Loggers of a Runner hold their file open."""
    for handler in getattr(instance, 'handlers', []):
        if isinstance(handler, logging.FileHandler):
            handler.close()
