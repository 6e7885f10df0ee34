"""``init_cfg=dict(type='Pretrained', checkpoint=...)``: a backbone starts from ImageNet weights."""

import logging
from typing import Any

from mmengine.logging import print_log
from mmengine.model import update_init_info
from torch import nn

from frdet.checkpoints.backbones import convert_backbone
from frdet.checkpoints.fit import load_strictly
from frdet.checkpoints.reading import load_file, unwrap
from frdet.errors import CheckpointError
from frdet.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Loads a backbone's weights from a file or URL, whatever project wrote it; every parameter must be there.

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
            CheckpointError: the file is unreadable, of an unknown layout, or does not fit the module.
        """
        state = unwrap(load_file(self.checkpoint, self.map_location), self.checkpoint)
        if self.prefix:
            prefix = self.prefix.rstrip('.') + '.'
            state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            if not state:
                raise CheckpointError(f'{self.checkpoint}: nothing in it is named {prefix}...')
        converted, layout = convert_backbone(state, self.checkpoint)
        load_strictly(module, converted, f'{self.checkpoint} (layout {layout})')
        print_log(f'{type(module).__name__}: weights of {self.checkpoint}, layout {layout}', logger='current')
        _warn_of_stride(module, layout)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'Pretrained: {self.checkpoint}, layout {layout}')


def _warn_of_stride(module: nn.Module, layout: str) -> None:
    """Shapes do not tell where a bottleneck has its stride: weights load into the wrong style without an error."""
    block: Any = next((m for name, m in module.named_modules() if name == 'layer2.0'), None)
    if not hasattr(block, 'conv3'):  # only bottlenecks have two styles
        return
    strides = (block.conv1.stride[0], block.conv2.stride[0])
    expected = {'Caffe2': (2, 1), 'torchvision': (1, 2)}.get(layout.split()[0], strides)
    if strides != expected:
        style = 'caffe' if expected == (2, 1) else 'pytorch'
        print_log(
            f"These weights were trained with style='{style}' (stride in the {'1x1' if style == 'caffe' else '3x3'}), "
            'the model has the other style: expect a lower AP',
            logger='current',
            level=logging.WARNING,
        )
