"""Pictures of what was detected."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.structures import InstanceData
from PIL import Image

from frdet.engine.hooks import DrawDetectionsHook
from frdet.engine.hooks.draw import PictureNames
from frdet.structures import DetDataSample
from frdet.visualization import DetVisualizer
from tests.engine import toy


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
    picture = np.asarray(Image.open(tmp_path / 'shown' / 'here' / 'grey.png.jpg').convert('RGB')).astype(int)
    scale = picture.shape[0] / 100
    touched = np.abs(picture - 128).max(axis=2) > 40
    assert touched[:, : int(90 * scale)].any()  # the sure one is drawn
    assert not touched[:, int(110 * scale) :].any()  # the other is below the threshold


def test_none_without_a_folder(tmp_path):
    hook = DrawDetectionsHook()
    hook.after_test_iter(Run(), 0, None, [detected(tmp_path / 'missing.png')])
    assert not list(tmp_path.iterdir())


class Images(toy.ToyDataset):
    """A data set of image files."""

    def __init__(self, paths):
        self.paths = paths
        super().__init__(length=len(paths))

    def load_data_list(self):
        return [dict(img_path=str(path)) for path in self.paths]


@pytest.mark.parametrize(
    ('data', 'pictures'),
    [
        ([['a/cam1/1.png', 'a/cam2/1.png', 'a/cam2/1.jpg', 'a/cam2/2.png']],
         ['cam1/1.png.jpg', 'cam2/1.png.jpg', 'cam2/1.jpg', 'cam2/2.png.jpg']),
        ([['a/1.jpg', 'a/2.jpg']], ['1.jpg', '2.jpg']),
        ([['a/1.png', 'a/1.png.jpg', 'a/1.JPG']], ['1.png.jpg', '1.png.jpg.jpg', '1.JPG.jpg']),
        ([['a/1.jpg'], ['b/val/1.jpg']], ['a/1.jpg', 'b/val/1.jpg']),  # joined
        ([['a/../b/1.jpg', 'a/1.jpg']], ['b/1.jpg', 'a/1.jpg']),
        ([['a/1.jpg', 'a/1.jpg']], ['1.jpg', '1.jpg']),  # one image twice
    ],
)  # fmt: skip
def test_pictures_of_equal_names(tmp_path, data, pictures):
    """Each image has its picture, in a folder as its own; its grey says which it is."""
    paths = [[tmp_path / path for path in part] for part in data]
    greys = {path: 20 * k for k, path in enumerate(dict.fromkeys(sum(paths, [])))}
    (tmp_path / 'a').mkdir()
    for path, grey in greys.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((100, 200, 3), grey, np.uint8)).save(path)
    parts = [Images(part) for part in paths]
    run = Run()
    run.test_dataloader = SimpleNamespace(dataset=ConcatDataset(parts) if parts[1:] else RepeatDataset(parts[0], 2))
    hook = DrawDetectionsHook(out_dir=str(tmp_path / 'shown'), score_thr=1.0)
    hook.before_test(run)
    for path in greys:
        hook.after_test_iter(run, 0, None, [detected(path)])
    found = {str(p.relative_to(tmp_path / 'shown')) for p in (tmp_path / 'shown').rglob('*.jpg')}
    assert found == set(pictures)
    for name, path in zip(pictures, sum(paths, []), strict=True):
        assert abs(int(np.asarray(Image.open(tmp_path / 'shown' / name)).mean()) - greys[path]) <= 2


PARTS = st.sampled_from(['a', 'b', '..', 'x.png', 'x.jpg', 'x.png.jpg', 'x.jpg.jpg'])
PATHS = st.lists(st.tuples(st.sampled_from(['/d/', 'd/', '']), st.lists(PARTS, min_size=1, max_size=4)), max_size=8)


@given(PATHS, st.integers(0, 8))
def test_no_two_names_alike_and_none_outside(drawn, known):
    """Also for images that the data set did not name before."""
    paths = [top + '/'.join([*parts, 'x.png']) for top, parts in drawn]
    names = PictureNames(paths[:known])
    found = {path: names(path) for path in paths}
    assert len(set(found.values())) == len(found)
    assert all(names(path) == name and name.endswith('.jpg') for path, name in found.items())
    assert not any(Path(name).is_absolute() or '..' in name.split(os.sep) for name in found.values())
