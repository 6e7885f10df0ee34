"""Pictures of detections, written while testing."""

from collections.abc import Sequence
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

    With several processes the first one draws, its share of the images.

    Args:
        out_dir: folder of the pictures; None writes none. ``test.py --show-dir`` sets it.
        score_thr: least score of a detection that is drawn.
        draw_gt: whether the ground truth is drawn too.
    """

    def __init__(self, *, out_dir: str | None = None, score_thr: float = 0.3, draw_gt: bool = True):
        self.out_dir = out_dir
        self.score_thr = score_thr
        self.draw_gt = draw_gt

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[DetDataSample] | None = None
    ) -> None:
        """Write ``<name of the image>.jpg`` for every image of the batch."""
        if self.out_dir is None:
            return
        for sample in outputs or ():
            name = Path(sample.img_path).stem
            runner.visualizer.add_datasample(
                name,
                read_image(sample.img_path)[:, :, ::-1],
                data_sample=sample.cpu(),
                draw_gt=self.draw_gt,
                pred_score_thr=self.score_thr,
                out_file=str(Path(self.out_dir) / f'{name}.jpg'),
            )
