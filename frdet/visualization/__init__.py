"""Pictures: boxes on images, contact sheets, MMEngine's visualizer."""

from frdet.moved import moved_names
from frdet.visualization.drawing import class_colour, draw_boxes, draw_side_by_side, grid, save_image
from frdet.visualization.visualizer import DetVisualizer
from frdet.visualization.wandb import WandbVisBackend

__all__ = ['DetVisualizer', 'WandbVisBackend', 'class_colour', 'draw_boxes', 'draw_side_by_side', 'grid', 'save_image']

__getattr__ = moved_names(__name__, {'browse_dataset': 'frdet.insight.browse'})
