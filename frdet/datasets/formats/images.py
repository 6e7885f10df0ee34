"""Images without labels."""

from typing import Any

import numpy as np

from frdet.datasets.annotations import Annotations
from frdet.datasets.base import DetDataset, ImagePrefix
from frdet.datasets.formats.sizes import image_records
from frdet.datasets.locating import image_files
from frdet.errors import ConfigError
from frdet.registry import DATASETS


@DATASETS.register_module()
class ImageFolder(DetDataset):
    """All images in a folder and the folders in it, without objects: background images, joined to labelled ones.

    ``metainfo`` must have the classes. ``filter_cfg`` must not leave out images without an object. No object lacks a
    mask, so that the images can be joined to data with and without masks.

    Args:
        data_prefix: ``img`` is the folder.
        ann_file: the same, and may be left out.
        kwargs: as of ``DetDataset``.
    """

    def __init__(self, *, data_prefix: ImagePrefix, ann_file: str = '', **kwargs: Any):
        super().__init__(
            data_prefix=data_prefix, ann_file=ann_file or data_prefix.get('img', ''), **{'with_masks': True, **kwargs}
        )

    def read(self) -> Annotations:
        """List the images."""
        if not (classes := self._metainfo.get('classes')):
            raise ConfigError('ImageFolder has no classes of its own: set metainfo=dict(classes=[...])')
        names = image_files(self.data_prefix['img'])
        if not names:
            raise ValueError('it has no image')
        images = list(image_records(self, names).values())
        none = np.zeros(0)
        return Annotations(
            images=images, categories=classes, image_index=none, category_index=none, boxes=np.zeros((0, 4))
        )
