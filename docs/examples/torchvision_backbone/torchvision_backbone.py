"""A backbone of torchvision's classifiers, with the weights of torchvision's own file."""

import torch
from mmengine.model import BaseModule
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

from frdet.registry import BACKBONES


@BACKBONES.register_module()
class TorchvisionBackbone(BaseModule):
    """Feature maps from inside a classifier.

    Args:
        name: the model in ``torchvision.models``.
        nodes: the modules whose outputs are returned, finest first; the last one ends the network.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` loads a file of torchvision's.
    """

    def __init__(self, *, name: str, nodes: list[str], init_cfg: dict | None = None):
        super().__init__(init_cfg)
        self.body = create_feature_extractor(get_model(name, weights=None), return_nodes=nodes)
        with torch.no_grad():
            maps = self.eval()(torch.zeros(1, 3, 64, 64))
        self.train()
        self.out_channels = tuple(m.shape[1] for m in maps)  # what a neck without in_channels is given

    def forward(self, images):
        """(N, 3, H, W) -> a map a node."""
        return tuple(self.body(images).values())
