"""What conftest.py promises to every other test."""

import json
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope

MANAGERS = (DefaultScope, MessageHub, MMLogger)


@pytest.fixture(scope='module', autouse=True)
def _seen_from_outside() -> Iterator[None]:
    """What this module's tests leave behind, checked after the last of them."""
    python, numpy, torch_cpu = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    yield
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy).all()
    assert torch.get_rng_state().equal(torch_cpu)
    assert not any(manager.check_instance_created('left behind') for manager in MANAGERS)


def test_the_longest_files_are_first(request):
    conftest = Path(__file__).with_name('conftest.py')
    (plugin,) = (p for p in request.config.pluginmanager.get_plugins() if getattr(p, '__file__', '') == str(conftest))
    files = [conftest.parent / name for name in plugin.LONG]
    assert all(file.is_file() for file in files)
    marked = []
    items = [
        SimpleNamespace(path=path, add_marker=lambda name, path=path: marked.append((name, path)))
        for path in (conftest, files[1], conftest, files[0], files[1])
    ]
    plugin.pytest_collection_modifyitems(items)
    assert [item.path for item in items] == [files[0], files[1], files[1], conftest, conftest]
    assert marked == [('long', files[0]), ('long', files[1]), ('long', files[1])]


@pytest.mark.parametrize('run', range(2))
def test_every_test_starts_from_seed_0(run: int):
    assert random.random() == random.Random(0).random()
    assert np.random.rand() == np.random.RandomState(0).rand()
    assert torch.rand(()).equal(torch.rand((), generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize('run', range(2))
def test_no_global_instance_is_inherited(run: int):
    assert not any(manager.check_instance_created('left behind') for manager in MANAGERS)
    DefaultScope.get_instance('left behind', scope_name='somewhere')
    MessageHub.get_instance('left behind')
    MMLogger.get_instance('left behind')


@pytest.mark.parametrize('category', [DeprecationWarning, FutureWarning, PendingDeprecationWarning])
def test_deprecated_calls_in_our_code_are_errors(category: type[Warning]):
    calling = {'warnings': warnings, 'category': category}
    with pytest.raises(category):
        exec('warnings.warn("gone soon", category)', {**calling, '__name__': 'frdet.models.made_up'})


@pytest.mark.filterwarnings('ignore:gone soon:FutureWarning:elsewhere')
def test_deprecated_calls_of_other_packages_are_not():
    for category in (DeprecationWarning, FutureWarning):
        calling = {'warnings': warnings, 'category': category}
        exec('warnings.warn("gone soon", category)', {**calling, '__name__': 'elsewhere'})


def test_the_data_set_has_cocos_layout(coco_root):
    for ann, folder in ((coco_root.train_ann, coco_root.train_dir), (coco_root.val_ann, coco_root.val_dir)):
        content = json.loads(Path(coco_root.root, ann).read_text())
        assert content['annotations']
        assert all((folder / image['file_name']).is_file() for image in content['images'])
        assert {c['name'] for c in content['categories']} == set(coco_root.classes)


@pytest.mark.parametrize('category', [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
def test_deprecations_of_our_own_are_errors(category):
    """What other packages deprecate among themselves passes."""
    warnings.warn_explicit('old', DeprecationWarning, 'hook.py', 1, module='mmengine.hooks.hook')
    with pytest.raises(category, match='old'):
        warnings.warn_explicit('old', category, 'fpn.py', 1, module='frdet.models.necks.fpn')
