"""``init_cfg=dict(type='Pretrained', checkpoint=...)``: a backbone starts from the weights of a file."""

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import Tensor, nn

from frdet.checkpoints.backbones import convert_backbone, to_tensor
from frdet.checkpoints.fit import load_strictly
from frdet.checkpoints.reading import load_file, unwrap
from frdet.errors import CheckpointError
from frdet.registry import WEIGHT_INITIALIZERS

#: Layers of an ImageNet file that a backbone may lack.
_CLASSIFIER = re.compile(r'(fc|head|classifier)\.')


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Loads the weights of a file into a backbone; every parameter must be there in its shape.

    Names of a ResNet of detectron2, torchvision or MMDetection are converted. Names of any other backbone must be those
    of the file, except for a prefix that all names of the file, or all of the backbone, begin with, and for dots that
    are underscores in the backbone, as in timm's with ``features_only=True``. A classifier (``fc``, ``head``,
    ``classifier``) that the backbone does not have is left out. The log says which of these was done.

    Args:
        checkpoint: path or address, see ``frdet.checkpoints.resolve``.
        prefix: take only what is named ``<prefix>...``, and drop the prefix.
        map_location: as in ``torch.load``.
    """

    #: MMEngine sets it where an ``override`` names a part of the module.
    wholemodule = False

    def __init__(self, *, checkpoint: str, prefix: str | None = None, map_location: Any = 'cpu'):
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.map_location = map_location

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
        _warn_of_stride(module, how)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'Pretrained: {self.checkpoint}, {how}')


def _ways(state: dict[str, Any], source: str) -> dict[str, dict[str, Tensor]]:
    """In words -> the weights of a file: out of a ResNet's layout where the names are in one, and as they are."""
    ways = {}
    with contextlib.suppress(CheckpointError):
        converted, layout = convert_backbone(state, source)
        ways[f'layout {layout}'] = converted
    with contextlib.suppress(*[CheckpointError] if ways else []):
        ways['names as they are'] = {name: to_tensor(value, name, source) for name, value in state.items()}
    return ways


def _load(module: nn.Module, ways: dict[str, dict[str, Tensor]], source: str) -> str:
    """Load what fits the module, and say in words what it is; an error about the nearest where nothing fits."""
    own = module.state_dict()
    tried = [(how, *one) for how, weights in ways.items() for one in _renamings(own, weights)]
    for how, weights, left_out in tried:
        with contextlib.suppress(CheckpointError):
            load_strictly(module, weights, source)
            return f'{how}, without {", ".join(left_out)}' if left_out else how
    _, nearest, _ = min(tried, key=lambda one: len(own.keys() ^ one[1].keys()))
    load_strictly(module, nearest, f'{source} (tried {" and ".join(ways)})')
    raise AssertionError('it did not fit before')


def _renamings(own: Iterable[str], weights: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Weights under names that the module may have, and the names of a classifier that are left out."""
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
        if len(named) + len(left_out) == len(weights):  # no two of one name
            yield named, left_out


def _shared(names: Iterable[str]) -> str:
    """The prefix of all names, to the last dot."""
    return re.sub(r'[^.]*$', '', os.path.commonprefix(list(names)))


def _warn_of_stride(module: nn.Module, how: str) -> None:
    """Shapes do not tell where a bottleneck has its stride: weights load into the wrong style without an error."""
    block: Any = next((m for name, m in module.named_modules() if name == 'layer2.0'), None)
    if not hasattr(block, 'conv3'):  # only bottlenecks have two styles
        return
    strides = (block.conv1.stride[0], block.conv2.stride[0])
    expected = {'Caffe2': (2, 1), 'torchvision': (1, 2)}.get(how.removeprefix('layout ').split()[0], strides)
    if strides != expected:
        style = 'caffe' if expected == (2, 1) else 'pytorch'
        print_log(
            f"These weights were trained with style='{style}' (stride in the {'1x1' if style == 'caffe' else '3x3'}), "
            'the model has the other style: expect a lower AP',
            logger='current',
            level=logging.WARNING,
        )
