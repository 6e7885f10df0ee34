"""Drawing the detections of test images."""

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
    """Writes every test image with its detections, and its ground truth beside them, through the Runner's visualizer.

    The pictures have the folders of their images, below the common folder of all test images; see ``PictureNames``.
    Of several processes only the first one draws, and only its own images.

    Args:
        out_dir: folder of the pictures; with None nothing is drawn. ``test.py --show-dir`` sets it.
        score_thr: the lowest score of a detection that is drawn.
        draw_gt: whether the ground truth is drawn too.
    """

    def __init__(self, *, out_dir: str | None = None, score_thr: float = 0.3, draw_gt: bool = True):
        self.out_dir = out_dir
        self.score_thr = score_thr
        self.draw_gt = draw_gt
        self._names = PictureNames()

    def before_test(self, runner: Runner) -> None:
        """Find the common folder of all test images."""
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
    """Relative paths of pictures, a different one for each image.

    The picture of ``cam1/a.png`` is ``cam1/a.png.jpg``, which differs from the picture of ``cam1/a.jpg``. The names do
    not contain the common folder of ``paths``, which are the paths of all images.
    """

    def __init__(self, paths: Iterable[str] = ()):
        parents = {os.path.dirname(os.path.abspath(path)) for path in paths}
        self._top = os.path.commonpath(parents) if parents else None
        self._taken: dict[str, str] = {}  # name: path

    def __call__(self, path: str) -> str:
        """Return the name for the image at ``path``; the same name each time."""
        absolute = os.path.abspath(path)  # without '..'
        top = self._top
        if top is None or os.path.commonpath([top, absolute]) != top:
            top = os.path.dirname(absolute)
        name = os.path.relpath(absolute, top)
        name = name if name.endswith('.jpg') else f'{name}.jpg'
        while self._taken.setdefault(name, path) != path:
            name = f'{name}.jpg'
        return name
