"""Pictures: boxes on images, contact sheets, MMEngine's visualizer."""

from frdet.visualization.browse import browse_dataset
from frdet.visualization.drawing import class_colour, draw_boxes, save_image
from frdet.visualization.layout import draw_side_by_side, grid
from frdet.visualization.visualizer import DetVisualizer

__all__ = ['DetVisualizer', 'browse_dataset', 'class_colour', 'draw_boxes', 'draw_side_by_side', 'grid', 'save_image']
