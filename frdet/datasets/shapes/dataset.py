"""The embedded data set as a component: it draws itself on first use."""

from pathlib import Path
from typing import Any

from frdet.datasets.coco import CocoDataset
from frdet.datasets.shapes.writing import is_absent, write_shapes
from frdet.registry import DATASETS


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """Drawn shapes: ``write_shapes`` draws both splits into ``data_root`` if nothing is there yet.

    What is there is used, so ``python -m frdet.datasets.shapes`` may have drawn it with other counts and sizes.

    Args:
        data_root: folder of the data set.
        kwargs: as for ``CocoDataset``.
    """

    def __init__(self, *, data_root: str, **kwargs: Any):
        if is_absent(Path(data_root)):
            write_shapes(data_root)
        super().__init__(data_root=data_root, **kwargs)
