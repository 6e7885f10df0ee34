import pytest
import torch
from mmengine.hooks import CheckpointHook, IterTimerHook
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from frdet.errors import ConfigError
from frdet.registry import (
    BACKBONES,
    DETECTORS,
    HOOKS,
    LOSSES,
    NECKS,
    PARAM_SCHEDULERS,
    SAMPLERS,
    Registry,
    arguments_of,
    build_parts,
    check_arguments,
    parts_of,
)


@pytest.fixture
def backbones():
    """A registry of one class, gone after the test."""
    registry = Registry('test backbone')

    @registry.register_module()
    class Net:
        def __init__(self, *, width: int, depth: int = 2):
            self.width, self.depth = width, depth

    yield registry
    Registry.all.remove(registry)


def test_builds_by_name(backbones):
    net = backbones.build(dict(type='Net', width=3))
    assert (net.width, net.depth) == (3, 2)
    assert backbones.build(dict(type='Net', width=3), depth=7).depth == 7


def test_what_is_built_is_returned(backbones):
    module = nn.Linear(1, 1)
    assert backbones.build(module) is module


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(type='Nett', width=3), "'Nett' is not in the registry of test backbones: did you mean Net"),
        (dict(type='Net', widht=3), "test backbone Net has no argument 'widht': did you mean width"),
        (dict(type='Net', zzz=3), "has no argument 'zzz': it takes depth, width"),
        (dict(type='Net'), 'test backbone Net needs width'),
        (dict(width=3), 'the dict has no `type`'),
        (dict(type=3), 'expected a name as type, found 3'),
        ('Net', "expected a dict with a `type`, found 'Net'"),
        (None, 'expected a dict with a `type`, found None'),
    ],
)
def test_mistakes(backbones, cfg, message):
    with pytest.raises(ConfigError, match=message):
        backbones.build(cfg)


def test_unknown_name_says_which_import_is_missing():
    with pytest.raises(ConfigError, match=r"custom_imports = dict\(imports=\['my_module'\]\)"):
        BACKBONES.get('MyNet')


@pytest.mark.parametrize(
    ('registry', 'name', 'kind'),
    [(BACKBONES, 'FPN', 'neck'), (NECKS, 'ResNet', 'backbone'), (LOSSES, 'RandomSampler', 'sampler')],
)
def test_component_in_the_wrong_place(registry, name, kind):
    with pytest.raises(ConfigError, match=f'it is a {kind}, and stands where a {registry.name} belongs'):
        registry.get(name)


def test_mmengine_components_are_found():
    assert HOOKS.get('IterTimerHook') is IterTimerHook


def test_mmengine_builds_ours_under_the_default_scope():
    """The Runner builds through MMEngine's own registries."""
    with DefaultScope.overwrite_default_scope('frdet'):
        hook = MMENGINE_HOOKS.build(dict(type='NonFiniteHook', interval=2))
        assert type(hook).__module__.startswith('frdet.engine')
        with pytest.raises(ConfigError, match='did you mean NonFiniteHook'):
            MMENGINE_HOOKS.build(dict(type='NonFinitHook'))
        with pytest.raises(ConfigError, match='it is a backbone'):
            MODELS.build(dict(type='ResNet'))


def test_name_with_a_scope_reaches_that_package(tmp_path, monkeypatch):
    package = tmp_path / 'frdet_test_zoo'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (package / 'registry.py').write_text(
        'from mmengine.registry import MODELS as ROOT, Registry\n'
        "MODELS = Registry('model', parent=ROOT, scope='frdet_test_zoo')\n"
        '@MODELS.register_module()\n'
        'class ZooNet:\n'
        '    def __init__(self, width):\n'
        '        self.width = width\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    net = BACKBONES.build(dict(type='frdet_test_zoo.ZooNet', width=5))
    assert (type(net).__name__, net.width) == ('ZooNet', 5)
    with pytest.raises(ConfigError, match=r"'frdet_test_zoo\.NoNet' is not in the registry"):
        BACKBONES.get('frdet_test_zoo.NoNet')


def test_scope_of_a_package_that_is_not_installed():
    with pytest.raises(ConfigError, match="'frdet_no_such_zoo', which is not installed: install it"):
        BACKBONES.get('frdet_no_such_zoo.Net')


def test_scope_of_a_package_that_does_not_import(tmp_path, monkeypatch):
    (tmp_path / 'frdet_test_old_zoo').mkdir()
    (tmp_path / 'frdet_test_old_zoo' / '__init__.py').write_text("assert False, 'needs an older torch'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match='installed and does not import: AssertionError: needs an older torch'):
        BACKBONES.get('frdet_test_old_zoo.Net')


def test_scope_of_a_package_without_registry():
    with pytest.raises(ConfigError, match=r"'torchvision', which has no MMEngine registry"):
        BACKBONES.get('torchvision.ResNet')


def test_own_scope_is_the_plain_name():
    assert BACKBONES.get('frdet.ResNet') is BACKBONES.get('ResNet')


def test_arguments_are_read_up_the_chain():
    class Base:
        def __init__(self, a, b=1):
            pass

    class Passes(Base):
        def __init__(self, c, **kwargs):
            super().__init__(**kwargs)

    class Stops(Base):
        def __init__(self, *, d):
            super().__init__(1)

    assert arguments_of(Passes) == ({'a', 'b', 'c'}, {'a', 'c'}, False)
    assert arguments_of(Stops) == ({'d'}, {'d'}, False)
    # MMEngine's LinearLR is given param_name by position.
    assert arguments_of(PARAM_SCHEDULERS.get('LinearLR'))[1] == {'optimizer'}
    assert arguments_of(lambda x, *args, y=2, **kwargs: None) == ({'x', 'y'}, {'x'}, True)
    accepted, required, open_ended = arguments_of(torch.optim.SGD)
    assert {'lr', 'momentum', 'weight_decay'} <= accepted and required == {'params'} and not open_ended


def test_open_ended_component_still_catches_a_misspelling():
    """MMEngine's CheckpointHook takes any keyword and passes it to torch.save: a misspelt one is lost silently."""
    check_arguments('hook', CheckpointHook, {'interval', 'some_option_of_torch_save'})
    with pytest.raises(ConfigError, match="no argument 'intervall': did you mean interval"):
        check_arguments('hook', CheckpointHook, {'intervall'})


def test_names_are_unique_across_our_kinds():
    """A name in two registries would make "it is a neck" wrong."""
    DETECTORS.import_from_location()
    SAMPLERS.import_from_location()
    names = [name for registry in Registry.all if registry.parent is None for name in registry.module_dict]
    assert len(names) == len(set(names))


def test_argument_that_a_class_fills_in_itself_is_not_required():
    class Base:
        def __init__(self, a, b, c=1):
            pass

    class Keyword(Base):
        def __init__(self, **kwargs):
            super().__init__(a=1, **kwargs)

    class Item(Base):
        def __init__(self, **kwargs):
            kwargs['b'] = 2
            super().__init__(**kwargs)

    class Both(Keyword):
        def __init__(self, **kwargs):
            super().__init__(**dict(kwargs, b=2))

    class Position(Base):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    assert arguments_of(Keyword) == ({'a', 'b', 'c'}, {'b'}, False)
    assert arguments_of(Item) == ({'a', 'b', 'c'}, {'a'}, False)
    assert arguments_of(Both) == ({'a', 'b', 'c'}, set(), False)

    class First(Base):
        def __init__(self, *args, **kwargs):
            super().__init__(1, *args, **kwargs)

    class Unknown(Base):
        def __init__(self, *args, **kwargs):
            given = [1, 2]
            super().__init__(*given, **kwargs)

    # A config gives keywords alone: `args` is empty.
    assert arguments_of(Position)[1] == {'a', 'b'}
    assert arguments_of(First)[1] == {'b'}
    assert arguments_of(Unknown)[1] == set()


def test_class_without_constructor_takes_nothing():
    class Plain:
        pass

    class Module(nn.Module):
        pass

    class Takes(nn.Module):
        def __init__(self, *, a=1, **kwargs):
            super().__init__()

    assert arguments_of(Plain) == arguments_of(Module) == (set(), set(), False)
    assert arguments_of(Takes) == ({'a'}, set(), True)
    with pytest.raises(ConfigError, match="neck Module has no argument 'a': it takes none"):
        check_arguments('neck', Module, {'a'})


def test_arguments_that_no_config_can_give():
    """A config gives keywords: what can only be given by position is no argument."""

    class Positional:
        def __init__(self, a, /, b, *rest, c):
            pass

    assert arguments_of(Positional) == ({'b', 'c'}, {'b', 'c'}, False)


class WithParts(nn.Module):
    parts = dict(body=BACKBONES, losses=LOSSES)


class WithMoreParts(WithParts):
    parts = dict(body=NECKS)


def test_parts_of_base_classes_are_parts(tmp_path):
    assert parts_of(WithMoreParts) == dict(body=NECKS, losses=LOSSES)
    assert parts_of(nn.Linear) == {}


def test_parts_are_built_from_configs_lists_and_what_is_built():
    part, linear = WithParts(), nn.Linear(1, 1)
    build_parts(part, losses=[dict(type='L1Loss', loss_weight=2.0), linear], body=None)
    assert isinstance(part.losses, nn.ModuleList) and part.losses[0].loss_weight == 2 and part.losses[1] is linear
    assert part.body is None
    build_parts(part, losses=dict(type='L1Loss', loss_weight=1.0))
    assert part.losses.loss_weight == 1


def test_a_part_that_is_not_declared():
    with pytest.raises(ConfigError, match=r"WithParts in .*test_registry\.py builds the part 'head', which its parts"):
        build_parts(WithParts(), head=dict(type='L1Loss'))


@pytest.mark.parametrize('wrong', [dict(head='NECKS'), dict(body=nn.Module), ['body'], 3])
def test_parts_that_name_no_registry(wrong):
    cls = type('Wrong', (WithParts,), dict(parts=wrong, __module__=__name__))
    with pytest.raises(ConfigError, match=r'Wrong\.parts in .*test_registry\.py has .*: expected the registry'):
        parts_of(cls)
