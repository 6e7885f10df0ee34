"""COCO's object detection data set."""

from frdet.datasets.annotations import Annotations
from frdet.datasets.base import DetDataset
from frdet.datasets.formats.coco import read_coco
from frdet.registry import DATASETS


@DATASETS.register_module()
class CocoDataset(DetDataset):
    """Images with the boxes of a COCO annotation file, in the order of image ids; classes in the order of category ids.

    Objects with ``"ignore": 1`` are not trained on. Arguments and records are those of ``DetDataset``.
    """

    how_to_get = (
        'Get COCO with `python tools/download_coco.py`, or set FRDET_DATA_ROOT to a folder in its layout '
        '(annotations/instances_val2017.json, val2017/)'
    )

    def read(self) -> Annotations:
        """Read the annotation file."""
        return read_coco(self.ann_file)
