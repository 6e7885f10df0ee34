"""The embedded data set: drawn shapes in COCO's layout, to try everything without a download.

python -m frdet.datasets.shapes data/shapes --train 600 --val 150
"""

from frdet.datasets.shapes.dataset import ShapesDataset, write_shapes
from frdet.datasets.shapes.drawing import CLASSES

__all__ = ['CLASSES', 'ShapesDataset', 'write_shapes']
