"""Classify an RoI and refine its box."""

from itertools import pairwise

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.registry import BBOX_HEADS


@BBOX_HEADS.register_module()
class FCBBoxHead(BaseModule):
    """Shared fully connected layers, then one layer for class scores, with the background last, and one for deltas.

    Args:
        num_classes: K, without the background. Where a config has None, training, testing and ``init_detector`` fill
            in the number of the data set's classes.
        in_channels: channels of the pooled features.
        roi_size: height and width of the pooled features.
        fc_channels: channels of each shared layer.
        num_fcs: number of shared layers.
        class_agnostic: predict one box for all classes instead of one for each.
        init_cfg: MMEngine's.

    Raises:
        ConfigError: ``num_classes`` is not a positive number.
    """

    #: The layers whose weights depend on the classes. Fine-tuning on other classes initialises them again.
    class_layers: tuple[str, ...] = ('fc_cls', 'fc_reg')

    def __init__(
        self,
        *,
        num_classes: int | None,
        in_channels: int,
        roi_size: int,
        fc_channels: int,
        num_fcs: int,
        class_agnostic: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if num_classes is None or num_classes < 1:
            raise ConfigError(
                f'FCBBoxHead: num_classes is {num_classes}, expected a positive number. train_detector, test_detector '
                "and init_detector replace None by the number of the data set's classes"
            )
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        sizes = [in_channels * roi_size**2] + [fc_channels] * num_fcs
        shared = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.shared_fcs = nn.ModuleList(shared)
        self.fc_cls = nn.Linear(sizes[-1], num_classes + 1)
        self.fc_reg = nn.Linear(sizes[-1], 4 * (1 if class_agnostic else num_classes))
        for fc in shared:
            nn.init.kaiming_uniform_(fc.weight, a=1)  # Caffe2's XavierFill
            nn.init.zeros_(fc.bias)
        for fc, std in ((self.fc_cls, 0.01), (self.fc_reg, 0.001)):
            nn.init.normal_(fc.weight, std=std)
            nn.init.zeros_(fc.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (R, C, S, S) -> class scores (R, K + 1) and deltas (R, K, 4), or (R, 1, 4) if agnostic."""
        x = pooled.flatten(1)
        for fc in self.shared_fcs:
            x = F.relu_(fc(x))
        return self.fc_cls(x).float(), self.fc_reg(x).float().unflatten(1, (-1, 4))
