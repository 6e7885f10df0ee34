"""The embedded data set as a component, which draws itself at first use."""

from pathlib import Path

from frdet.datasets.coco import CocoDataset
from frdet.datasets.shapes.writing import is_absent, write_shapes
from frdet.registry import DATASETS


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """Drawn shapes. ``write_shapes`` draws both splits into ``data_root`` if the folder is missing or empty.

    Existing files are used. ``python -m frdet.datasets.shapes`` may have drawn them with other counts and sizes.

    Args:
        kwargs: as for ``CocoDataset``. ``data_root`` is required.
    """

    def prepare_files(self) -> None:
        """Draw the data set."""
        if is_absent(Path(self.data_root)):
            write_shapes(self.data_root)
