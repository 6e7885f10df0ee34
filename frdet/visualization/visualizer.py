"""MMEngine's visualizer for detections: ground truth left, detections right."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.visualization import LocalVisBackend, Visualizer
from torch import Tensor

from frdet.evaluation.coco_metric import is_defined
from frdet.registry import VISUALIZERS
from frdet.structures import DetDataSample, flip_boxes, scale_boxes
from frdet.visualization.drawing import draw_boxes, draw_side_by_side, save_image

#: Attributes that MMEngine draws with. Making them imports matplotlib.
_FIGURE = ('fig_save_canvas', 'fig_save', 'ax_save', 'dpi')


@VISUALIZERS.register_module()
class DetVisualizer(Visualizer):
    """Draws the ground truth and the detections of an image, and gives the picture to the backends.

    Class names come from ``dataset_meta['classes']``, which MMEngine's Runner sets.

    Args:
        name: MMEngine finds the visualizer by this name.
        kwargs: ``vis_backends``, ``save_dir`` and other arguments of MMEngine's ``Visualizer``.
    """

    def __init__(self, name: str = 'visualizer', **kwargs: Any):
        super().__init__(name, **kwargs)
        for attribute in _FIGURE:  # `__getattr__` makes them
            delattr(self, attribute)

    def _initialize_fig(self, fig_cfg: Any) -> tuple[Any, Any, Any]:
        """No figure yet, because a training may draw nothing."""
        return None, SimpleNamespace(get_dpi=lambda: None), None

    def __getattr__(self, name: str) -> Any:
        """Make MMEngine's figure at its first use."""
        if name not in _FIGURE:
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {name!r}')
        self.fig_save_canvas, self.fig_save, self.ax_save = super()._initialize_fig(self.fig_save_cfg)
        self.dpi = self.fig_save.get_dpi()
        return getattr(self, name)

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: DetDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | Path | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Draw one image, show it if wished, and write it to ``out_file`` or give it to the backends.

        Args:
            name: name of the picture in the backends and the window.
            image: (H, W, 3) uint8 RGB, the original or the network's input.
            data_sample: ``gt_instances`` and ``ignored_instances`` are in pixels of the network's input,
                ``pred_instances`` in pixels of the original image.
            draw_gt, draw_pred: draw the ground truth or the detections, or both side by side.
            show: open a window.
            wait_time: seconds that the window stays open; 0 waits for a key.
            out_file: path of the picture. Its folder is created.
            pred_score_thr: lowest score of a drawn detection.
            step: step of the training, for the backends.
        """
        image = np.ascontiguousarray(image, dtype=np.uint8)
        pictures = []
        if draw_gt and data_sample is not None and 'gt_instances' in data_sample:
            pictures.append(self._truth(image, data_sample))
        if draw_pred and data_sample is not None and 'pred_instances' in data_sample:
            pictures.append(self._detections(image, data_sample, pred_score_thr))
        drawn = draw_side_by_side(*pictures) if len(pictures) == 2 else pictures[0] if pictures else image
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            Path(out_file).parent.mkdir(parents=True, exist_ok=True)
            save_image(drawn, out_file)
        else:
            self.add_image(name, drawn, step)

    @master_only
    def add_scalars(self, scalar_dict: dict[str, Any], step: int = 0, file_path: str | None = None) -> None:
        """Give metric values to the backends. Backends that draw curves do not get COCO's -1 for no object."""
        drawn = {name: value for name, value in scalar_dict.items() if value != -1 or is_defined(name, value)}
        for backend in self._vis_backends.values():
            backend.add_scalars(scalar_dict if isinstance(backend, LocalVisBackend) else drawn, step, file_path)

    @property
    def _classes(self) -> tuple[str, ...] | None:
        return (self.dataset_meta or {}).get('classes')

    def _truth(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        drawn = image
        for name, dashed in (('gt_instances', False), ('ignored_instances', True)):
            if name in sample:
                truth = sample.get(name)
                boxes = boxes_on(image, sample, truth.bboxes) * (drawn.shape[0] / image.shape[0])
                masks = truth.get('masks')
                if masks is not None and sample.get('flip', False) and not _is_input(image, sample):
                    masks = masks.flip(2)
                drawn = draw_boxes(drawn, boxes, truth.labels, classes=self._classes, masks=masks, dashed=dashed)
        return drawn

    def _detections(self, image: np.ndarray, sample: DetDataSample, least_score: float) -> np.ndarray:
        found = sample.pred_instances[sample.pred_instances.scores >= least_score]
        boxes, masks = found.bboxes, found.get('masks')
        if image.shape[:2] != sample.get('ori_shape', image.shape[:2]) and 'scale_factor' in sample:
            boxes = scale_boxes(boxes, sample.scale_factor)
            if sample.get('flip', False):
                boxes, masks = flip_boxes(boxes, image.shape[1]), None if masks is None else masks.flip(2)
        return draw_boxes(image, boxes, found.labels, found.scores, self._classes, masks=masks)


def boxes_on(image: np.ndarray, sample: DetDataSample, boxes: Tensor) -> Tensor:
    """Boxes (n, 4) in pixels of the network's input, moved to the original image unless ``image`` is the input.

    If both have the same size, ``image`` is the original.
    """
    if _is_input(image, sample):
        return boxes
    boxes = flip_boxes(boxes, sample.img_shape[1]) if sample.get('flip', False) else boxes
    x, y = sample.scale_factor
    return scale_boxes(boxes, (1 / x, 1 / y))


def _is_input(image: np.ndarray, sample: DetDataSample) -> bool:
    size = image.shape[:2]
    return 'scale_factor' not in sample or (size == sample.get('img_shape', size) and size != sample.get('ori_shape'))
