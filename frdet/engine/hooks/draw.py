"""Pictures of detections, written while testing."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.datasets.transforms.loading import read_image
from frdet.registry import HOOKS
from frdet.structures import DetDataSample


@HOOKS.register_module()
class DrawDetectionsHook(Hook):
    """Writes every test image with its detections, and its truth beside them, through the Runner's visualizer.

    Pictures are in folders as their images are, from the folder on that all test images have in common; see
    ``PictureNames``. With several processes the first one draws, its share of the images.

    Args:
        out_dir: folder of the pictures; None writes none. ``test.py --show-dir`` sets it.
        score_thr: least score of a detection that is drawn.
        draw_gt: whether the ground truth is drawn too.
    """

    def __init__(self, *, out_dir: str | None = None, score_thr: float = 0.3, draw_gt: bool = True):
        self.out_dir = out_dir
        self.score_thr = score_thr
        self.draw_gt = draw_gt
        self._names = PictureNames()

    def before_test(self, runner: Runner) -> None:
        """Find the folder that all test images have in common."""
        dataset = runner.test_dataloader.dataset
        if self.out_dir is not None and hasattr(dataset, 'get_data_info'):
            records = (dataset.get_data_info(index) for index in range(len(dataset)))
            self._names = PictureNames(record['img_path'] for record in records if 'img_path' in record)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[DetDataSample] | None = None
    ) -> None:
        """Write a picture for every image of the batch."""
        if self.out_dir is None:
            return
        for sample in outputs or ():
            name = self._names(sample.img_path)
            runner.visualizer.add_datasample(
                name,
                read_image(sample.img_path)[:, :, ::-1],
                data_sample=sample.cpu(),
                draw_gt=self.draw_gt,
                pred_score_thr=self.score_thr,
                out_file=str(Path(self.out_dir, name)),
            )


class PictureNames:
    """Relative paths of pictures, one for each image and no two alike.

    The picture of ``cam1/a.png`` is ``cam1/a.png.jpg``, so that one of ``cam1/a.jpg`` has a place of its own.

    Args:
        paths: of all images. The folder that they have in common is left out of the names.
    """

    def __init__(self, paths: Iterable[str] = ()):
        parents = {os.path.dirname(os.path.abspath(path)) for path in paths}
        self._top = os.path.commonpath(parents) if parents else None
        self._taken: dict[str, str] = {}  # name: path

    def __call__(self, path: str) -> str:
        """The picture of the image at ``path``, the same each time."""
        absolute = os.path.abspath(path)  # without '..'
        top = self._top
        if top is None or os.path.commonpath([top, absolute]) != top:
            top = os.path.dirname(absolute)
        name = os.path.relpath(absolute, top)
        name = name if name.endswith('.jpg') else f'{name}.jpg'
        while self._taken.setdefault(name, path) != path:
            name = f'{name}.jpg'
        return name
