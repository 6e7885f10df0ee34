"""Another project in the same process: MMDetection's scope is the default, with classes of frdet's names."""

from collections.abc import Iterator
from typing import Any

import mmengine.runner  # noqa: F401  # its registries fill themselves
import pytest
from mmengine.registry import DefaultScope
from mmengine.registry import Registry as MMEngineRegistry

from frdet.registry import Registry


class Rival:
    """In the place of each class."""

    def __init__(self, *args: Any, **kwargs: Any):
        raise AssertionError('built for frdet, although it is the class of another project')


@pytest.fixture
def rival_scope() -> Iterator[str]:
    """The scope, which must be the default of the process after the test as well."""
    scope = 'mmdet'
    parents = [registry.parent for registry in Registry.all if registry.parent is not None]
    for registry in Registry.all:
        registry.import_from_location()
        if registry.parent is not None:
            child = MMEngineRegistry(registry.name, parent=registry.parent, scope=scope)
            for name in registry.module_dict:
                child.register_module(name, module=Rival)
    DefaultScope.get_instance('rival', scope_name=scope)
    yield scope
    current = DefaultScope.get_current_instance()
    for parent in parents:
        parent.children.pop(scope)
    assert current is not None and current.scope_name == scope
