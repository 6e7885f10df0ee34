"""From the data loader's samples to the network's input."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from frdet.registry import PREPROCESSORS
from frdet.structures import check_truth


@PREPROCESSORS.register_module()
class DetPreprocessor(BaseDataPreprocessor):
    """Moves a batch to the device, normalises the images, pads them to one size at right and bottom with zeros.

    Args:
        mean, std: of each channel, for pixels of 0 to 255, in the network's order of channels.
        bgr_to_rgb: swap the BGR of the pipeline to RGB first.
        pad_size_divisor: height and width of the batch are multiples of this.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        bgr_to_rgb: bool = False,
        pad_size_divisor: int = 32,
    ):
        super().__init__(non_blocking=True)
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.bgr_to_rgb = bgr_to_rgb
        self.pad_size_divisor = pad_size_divisor
        #: Number of classes of the detector, if it is known. Labels in training must be smaller.
        self.num_classes: int | None = None

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """The data loader's batch -> the arguments of ``Detector.forward``.

        Args:
            data: ``inputs``, N images (3, H_i, W_i) uint8 BGR; ``data_samples``, N ``DetDataSample``.
            training: check the ground truth, while it is still on the host.

        Returns:
            ``inputs`` (N, 3, H, W) float32 in ``channels_last`` memory format; ``data_samples`` with
            ``batch_input_shape`` (H, W) in their metainfo.

        Raises:
            DataError: in training, for ground truth that no detector can be trained on; see ``check_truth``.
        """
        if training:
            check_truth(data.get('data_samples') or (), self.num_classes)
        data = self.cast_data(data)
        images: list[Tensor] = list(data['inputs'])
        d = self.pad_size_divisor
        height, width = (-(-max(image.shape[axis] for image in images) // d) * d for axis in (1, 2))
        shape = (len(images), 3, height, width)
        batch = torch.zeros(shape, device=images[0].device).to(memory_format=torch.channels_last)
        for target, image in zip(batch, images, strict=True):
            if self.bgr_to_rgb:
                image = image.flip(0)
            target[:, : image.shape[1], : image.shape[2]] = (image - self.mean) / self.std
        for sample in data.get('data_samples') or ():
            sample.set_metainfo({'batch_input_shape': (height, width)})
        return {**data, 'inputs': batch}
