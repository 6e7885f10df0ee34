"""MMEngine's visualizer for detections: ground truth left, detections right."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.structures import InstanceData
from mmengine.visualization import LocalVisBackend, Visualizer
from torch import Tensor

from frdet.evaluation.defined import is_defined
from frdet.registry import VISUALIZERS
from frdet.structures import DetDataSample, flip_boxes, scale_boxes
from frdet.visualization.drawing import draw_boxes, save_image
from frdet.visualization.layout import draw_side_by_side

#: What MMEngine draws on, which imports matplotlib.
_FIGURE = ('fig_save_canvas', 'fig_save', 'ax_save', 'dpi')


@VISUALIZERS.register_module()
class DetVisualizer(Visualizer):
    """Draws the truth and the detections of an image, and hands the picture to the backends.

    Class names come from ``dataset_meta['classes']``, which MMEngine's Runner sets.

    Args:
        name: MMEngine finds it by this name; its manager requires the argument.
        kwargs: ``vis_backends``, ``save_dir`` and the others of MMEngine's ``Visualizer``.
    """

    def __init__(self, name: str = 'visualizer', **kwargs: Any):
        super().__init__(name, **kwargs)
        for attribute in _FIGURE:  # from here on `__getattr__` makes them
            delattr(self, attribute)

    def _initialize_fig(self, fig_cfg: Any) -> tuple[Any, Any, Any]:
        """Nothing yet, for a training that draws nothing."""
        return None, SimpleNamespace(get_dpi=lambda: None), None

    def __getattr__(self, name: str) -> Any:
        """MMEngine's figure, made when it is asked for."""
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
        """Draw one image, and show it, write it to ``out_file``, or else give it to the backends.

        Args:
            name: of the picture, in the backends and the window.
            image: (H, W, 3) uint8 RGB, the original or the network's input.
            data_sample: its ``gt_instances`` and ``ignored_instances`` in pixels of the network's input, its
                ``pred_instances`` in pixels of the original image.
            draw_gt, draw_pred: what to draw, where there is such; both stand side by side.
            show: open a window.
            wait_time: seconds it stays, 0 until a key is pressed.
            out_file: path of a picture; its folder is created.
            pred_score_thr: least score of a detection that is drawn.
            step: of the training, for the backends.
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
        """Hand metric values to the backends; those that draw curves do not get COCO's -1, for no object."""
        drawn = {name: value for name, value in scalar_dict.items() if value != -1 or is_defined(name, value)}
        for backend in self._vis_backends.values():
            backend.add_scalars(scalar_dict if isinstance(backend, LocalVisBackend) else drawn, step, file_path)

    @property
    def _classes(self) -> tuple[str, ...] | None:
        return (self.dataset_meta or {}).get('classes')

    def _truth(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        truth = sample.gt_instances
        drawn = draw_boxes(image, boxes_on(image, sample, truth.bboxes), truth.labels, classes=self._classes)
        ignored: InstanceData | None = sample.get('ignored_instances')
        if ignored is None or len(ignored) == 0:
            return drawn
        factor = drawn.shape[0] / image.shape[0]
        boxes = boxes_on(image, sample, ignored.bboxes) * factor
        return draw_boxes(drawn, boxes, ignored.labels, classes=self._classes, dashed=True)

    def _detections(self, image: np.ndarray, sample: DetDataSample, least_score: float) -> np.ndarray:
        found = sample.pred_instances
        keep = found.scores >= least_score
        boxes = found.bboxes[keep]
        if image.shape[:2] != sample.get('ori_shape', image.shape[:2]) and 'scale_factor' in sample:
            boxes = scale_boxes(boxes, sample.scale_factor)
            boxes = flip_boxes(boxes, image.shape[1]) if sample.get('flip', False) else boxes
        return draw_boxes(image, boxes, found.labels[keep], found.scores[keep], self._classes)


def boxes_on(image: np.ndarray, sample: DetDataSample, boxes: Tensor) -> Tensor:
    """Boxes (n, 4) in pixels of the network's input, moved to ``image`` unless that is the input.

    Where the input has the original's size, ``image`` is taken for the original.
    """
    size = image.shape[:2]
    is_input = size == sample.get('img_shape', size) and size != sample.get('ori_shape')
    if is_input or 'scale_factor' not in sample:
        return boxes
    boxes = flip_boxes(boxes, sample.img_shape[1]) if sample.get('flip', False) else boxes
    x, y = sample.scale_factor
    return scale_boxes(boxes, (1 / x, 1 / y))
