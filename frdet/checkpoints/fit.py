"""Weights into a model or a backbone, with checks that they fit. MMEngine only warns where they do not."""

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import Tensor, nn

from frdet.checkpoints.backbones import convert_backbone, to_tensor
from frdet.checkpoints.families import identify, in_words
from frdet.checkpoints.reading import load_file, unwrap
from frdet.errors import CheckpointError
from frdet.registry import WEIGHT_INITIALIZERS

#: Ends of names of numbers that a file may lack: a count of batches, and the average number of positives.
_COUNTERS = ('num_batches_tracked', 'loss_normalizer')
#: Layers of an ImageNet file that a backbone may lack.
_CLASSIFIER = re.compile(r'(fc|head|classifier)\.')
_MASK_HEAD = 'roi_head.mask_head.'
_ADVICE = "Give the checkpoint of this config's model, or change the model to fit: depth, norm, number of classes"


def check_fit(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Compare names and shapes of ``state`` with those of the module; ``_COUNTERS`` may be missing.

    ``source`` names the file, and the layout recognised in it, for errors.

    Raises:
        CheckpointError: it is a detector of another family; or a parameter is missing, is left over or has another
            shape, and the first few are named.
    """
    own = module.state_dict()
    missing, left_over, misshapen = _differences(own, state)
    _refuse_family(source, [*missing, *left_over], own, state)
    _refuse(module, source, missing, left_over, misshapen)


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``, if it passes ``check_fit``."""
    check_fit(module, state, source)
    module.load_state_dict(state, strict=False)  # ``_COUNTERS`` may be missing


def fit_to_start(module: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the weights that fine-tuning starts from.

    Layers that a part of the module names in ``class_layers`` keep the module's own weights where the file has them for
    another number of classes, and so does a mask head that the file does not have. Parameters that the module does not
    have, such as a mask head's, are left out. Each of these cases gives one warning.

    Raises:
        CheckpointError: the file holds a detector of another family, or another parameter is missing or has another
            shape.
    """
    own = module.state_dict()
    missing, left_over, misshapen = _differences(own, state)
    masks = [n for n in own if n.startswith(_MASK_HEAD) and not n.endswith(_COUNTERS)]
    masks = masks if {*masks} <= {*missing} else []
    missing = [n for n in missing if n not in masks]
    layers = _class_layers(module)
    anew = [n for n in misshapen if n.rpartition('.')[0] in layers and own[n].shape[1:] == state[n].shape[1:]]
    _refuse_family(source, missing, own, state)
    _refuse(module, source, missing, [], {n: text for n, text in misshapen.items() if n not in anew})
    if masks:
        warn(f'{source} has no mask head: {_MASK_HEAD[:-1]} starts anew')
    if left_over:
        warn(f'{source} has, unlike the model, {few(left_over)}: left out')
    if anew:
        of = {n: n.rpartition('.')[0] for n in anew}
        *others, last = sorted(set(of.values()))
        named, wanted = f'{", ".join(others)} and {last}' if others else last, {layers[layer] for layer in of.values()}
        given = set.intersection(*(_count_given(len(own[n]), len(state[n]), layers[of[n]]) for n in anew))
        said = f'{given.pop()} classes, the model {wanted.pop()}' if len(given) == len(wanted) == 1 else 'other classes'
        warn(f'{source} has {said}: {named} start anew')
    taken = {name: own[name] if name in anew else value for name, value in state.items() if name not in left_over}
    return {**taken, **{name: own[name] for name in masks}}


def _class_layers(module: nn.Module) -> dict[str, int | None]:
    """Return the layers that depend on the classes, as ``class_layers`` declare them, and their numbers of classes."""
    return {
        f'{name}.{layer}'.removeprefix('.'): getattr(part, 'num_classes', None)
        for name, part in module.named_modules()
        for layer in getattr(part, 'class_layers', ())
    }


def _count_given(own: int, given: int, num_classes: int | None) -> set[int]:
    """Return the possible numbers of classes of a layer with ``given`` outputs; ``own`` outputs are ``num_classes``.

    A layer has the same number of outputs for each class; the background may count as a class.
    """
    kinds = {background: num_classes + background for background in (0, 1)} if num_classes else {}
    each = {background: own // count for background, count in kinds.items() if own % count == 0 and own}
    return {given // outputs - background for background, outputs in each.items() if given % outputs == 0}


def _refuse_family(source: str, names: list[str], own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Say in words that the file has another family, if ``names`` differ because of that."""
    given, wanted = identify(state), identify(own)
    if not names or given is None or wanted is None:
        return
    found, model = in_words(given[1], state), in_words(wanted[1], own)
    if given[1] is not wanted[1] or (found != model and all(n.startswith(_MASK_HEAD) for n in names)):
        raise CheckpointError(
            f"{source} holds {found}, and the config's model is {model}.\n"
            f'Give a checkpoint of {model}, or the config of {found}'
        )


def _refuse(module: nn.Module, source: str, missing: list[str], left_over: list[str], shapes: dict[str, str]) -> None:
    verbs = ('lacks', 'has, unlike the model,', 'has another shape of')
    problems = zip(verbs, (missing, left_over, list(shapes.values())), strict=True)
    found = [f'{verb} {few(names)}' for verb, names in problems if names]
    if found:
        raise CheckpointError(f'{source} does not fit {type(module).__name__}: it {"; it ".join(found)}.\n{_ADVICE}')


def _differences(own: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the missing names, the names left over, and the names of another shape with both shapes in words."""
    missing, left_over = (
        sorted(n for n in one if n not in other and not n.endswith(_COUNTERS))
        for one, other in ((own, state), (state, own))
    )
    misshapen = {
        name: f'{name} {tuple(state[name].shape)} (model: {tuple(value.shape)})'
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    }
    return missing, left_over, misshapen


def warn(text: str) -> None:
    """Log a warning."""
    print_log(text, logger='current', level=logging.WARNING)


def few(names: Sequence[str]) -> str:
    """Return the first three names, and the number of the other ones, for an error message."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


@WEIGHT_INITIALIZERS.register_module()
@dataclass(kw_only=True, eq=False)
class Pretrained:
    """Loads the weights of a file into a backbone. Every parameter must be in the file and have the same shape.

    The names of a ResNet of detectron2, torchvision or MMDetection are converted. Any other backbone needs a file with
    its own names. Four differences are accepted: a prefix that all names of the file share, or all names of the
    backbone; underscores in the backbone instead of dots, as timm has them with ``features_only=True``; a classifier
    (``fc``, ``head``, ``classifier``), or layers that the backbone names in ``absent_layers``, in the file alone;
    layers that the backbone names in ``added_layers`` in the backbone alone. The log says what was done.

    Args:
        checkpoint: path or address, see ``frdet.checkpoints.resolve``.
        prefix: load only the weights whose names begin with ``<prefix>.``, without this prefix.
        map_location: as in ``torch.load``.
    """

    #: MMEngine sets it where an ``override`` names a part of the module.
    wholemodule = False

    checkpoint: str
    prefix: str | None = None
    map_location: Any = 'cpu'

    def __call__(self, module: nn.Module) -> None:
        """Load into ``module``.

        Raises:
            CheckpointError: the file is unreadable or does not fit the module.
        """
        state = unwrap(load_file(self.checkpoint, self.map_location), self.checkpoint)
        if self.prefix:
            prefix = self.prefix.rstrip('.') + '.'
            state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            if not state:
                raise CheckpointError(f'{self.checkpoint}: nothing in it is named {prefix}...')
        how = _load(module, _ways(state, self.checkpoint), self.checkpoint)
        print_log(f'{type(module).__name__}: weights of {self.checkpoint}, {how}', logger='current')
        module.loaded_from = f'{self.checkpoint}, {how}'  # type: ignore[assignment]  # for the summary
        _warn_of_stride(module, how)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'Pretrained: {self.checkpoint}, {how}')


def _ways(state: dict[str, Any], source: str) -> dict[str, dict[str, Tensor]]:
    """Return the weights converted from a known ResNet layout and under their own names, each with its description."""
    ways = {}
    with contextlib.suppress(CheckpointError):
        converted, layout = convert_backbone(state, source)
        ways[f'layout {layout}'] = converted
    with contextlib.suppress(*[CheckpointError] if ways else []):
        ways['names as they are'] = {name: to_tensor(value, name, source) for name, value in state.items()}
    return ways


def _load(module: nn.Module, ways: dict[str, dict[str, Tensor]], source: str) -> str:
    """Load the first weights that fit and return their description; else raise an error about the nearest ones."""
    own = module.state_dict()
    tried = []
    for how, given in ways.items():
        weights, absent = _without_absent(module, given)
        tried += [(how, named, [*absent, *left_out]) for named, left_out in _renamings(own, weights)]
    for how, weights, left_out in tried:
        added = _added(module, weights)
        with contextlib.suppress(CheckpointError):
            load_strictly(module, {**weights, **added}, source)
            how += f', without {", ".join(left_out)}' if left_out else ''
            return f'{how}; it lacks {few(list(added))}, which stay as they are' if added else how
    _, nearest, _ = min(tried, key=lambda one: len(own.keys() ^ one[1].keys()))
    load_strictly(module, {**nearest, **_added(module, nearest)}, f'{source} (tried {" and ".join(ways)})')
    raise AssertionError('it did not fit before')


def _without_absent(module: nn.Module, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights without the layers that the module has left out on purpose, and the names of these layers."""
    layer_of = {name: name.partition('.')[0] for name in weights}
    absent = {layer for layer in layer_of.values() if layer in getattr(module, 'absent_layers', ())}
    return {name: value for name, value in weights.items() if layer_of[name] not in absent}, sorted(absent)


def _added(module: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the module's weights of layers that it has added to what a file has, where the file lacks them."""
    added = {layer for layer in getattr(module, 'added_layers', ()) if f'{layer}.weight' not in weights}
    return {name: value for name, value in module.state_dict().items() if name.rpartition('.')[0] in added}


def _renamings(own: Iterable[str], weights: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Yield the weights under names that the module may have, and the names of a classifier that are left out."""
    yield weights, []
    known = {name.replace('.', '_'): name for name in own}
    prefix = _shared(own)
    for beside in ((), [name for name in weights if _CLASSIFIER.match(name)]):
        kept = [name for name in weights if name not in beside]
        start = len(_shared(kept))
        named = {}
        left_out = list(beside)
        for name in kept:
            new = known.get((prefix + name[start:]).replace('.', '_'))
            if new is None and _CLASSIFIER.match(name[start:]):
                left_out.append(name)
            else:
                named[new or name] = weights[name]
        if len(named) + len(left_out) == len(weights):  # no name occurs twice
            yield named, left_out


def _shared(names: Iterable[str]) -> str:
    """Return the common prefix of all names, up to its last dot."""
    return re.sub(r'[^.]*$', '', os.path.commonprefix(list(names)))


def _warn_of_stride(module: nn.Module, how: str) -> None:
    """Warn of the other ``style``: both styles of a bottleneck have the same shapes, so loading gives no error."""
    block: Any = next((m for name, m in module.named_modules() if name == 'layer2.0'), None)
    if not hasattr(block, 'conv3'):  # only bottlenecks have two styles
        return
    strides = (block.conv1.stride[0], block.conv2.stride[0])
    expected = {'Caffe2': (2, 1), 'torchvision': (1, 2)}.get(re.split(r'\W', how.removeprefix('layout '))[0], strides)
    if strides != expected:
        style = 'caffe' if expected == (2, 1) else 'pytorch'
        warn(
            f"These weights were trained with style='{style}' (stride in the {'1x1' if style == 'caffe' else '3x3'}), "
            'the model has the other style: expect a lower AP'
        )
