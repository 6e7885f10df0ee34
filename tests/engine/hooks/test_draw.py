"""Pictures of what was detected."""

import numpy as np
import torch
from mmengine.structures import InstanceData
from PIL import Image

from frdet.engine.hooks import DrawDetectionsHook
from frdet.structures import DetDataSample
from frdet.visualization import DetVisualizer


class Run:
    def __init__(self):
        self.visualizer = DetVisualizer()
        self.visualizer.dataset_meta = dict(classes=('cat',))


def detected(path):
    sample = DetDataSample(metainfo=dict(img_id=1, img_path=str(path), img_shape=(200, 400), ori_shape=(100, 200)))
    boxes = torch.tensor([[20.0, 20.0, 60.0, 60.0], [100.0, 20.0, 160.0, 80.0]])
    sample.pred_instances = InstanceData(bboxes=boxes, scores=torch.tensor([0.9, 0.1]), labels=torch.tensor([0, 0]))
    return sample


def test_one_picture_an_image(tmp_path):
    Image.fromarray(np.full((100, 200, 3), 128, np.uint8)).save(tmp_path / 'grey.png')
    hook = DrawDetectionsHook(out_dir=str(tmp_path / 'shown' / 'here'), score_thr=0.3)
    hook.after_test_iter(Run(), 0, None, [detected(tmp_path / 'grey.png')])
    picture = np.asarray(Image.open(tmp_path / 'shown' / 'here' / 'grey.jpg').convert('RGB')).astype(int)
    scale = picture.shape[0] / 100
    touched = np.abs(picture - 128).max(axis=2) > 40
    assert touched[:, : int(90 * scale)].any()  # the sure one is drawn
    assert not touched[:, int(110 * scale) :].any()  # the other is below the threshold


def test_none_without_a_folder(tmp_path):
    hook = DrawDetectionsHook()
    hook.after_test_iter(Run(), 0, None, [detected(tmp_path / 'missing.png')])
    assert not list(tmp_path.iterdir())
