"""A detector from a config and a checkpoint, on images."""

import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from frdet.apis import inference_detector, init_detector
from frdet.checkpoints import convert_state_dict, read_detector, write_detector
from frdet.config import load_config
from frdet.errors import CheckpointError, ConfigError, DataError
from frdet.registry import DETECTORS
from tests.checkpoints.test_reading import Trap

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'
SMALL = [
    'model.roi_head.bbox_head.fc_channels=32',
    'model.roi_head.score_thr=0.0',
    'model.rpn_head.post_nms_test=20',
]
CLASSES = ('a', 'b', 'c', 'd', 'e', 'f')


@pytest.fixture(scope='module')
def config():
    from tests.engine.toy import ROOT

    return ROOT / CONFIG


@pytest.fixture(scope='module')
def checkpoint(config, tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(load_config(config, SMALL).model)
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': CLASSES}}}, path)
    return path


@pytest.fixture(scope='module')
def model(config, checkpoint):
    return init_detector(config, checkpoint, device='cpu', cfg_options=SMALL)


def test_init_detector(model, checkpoint):
    assert not model.training
    assert model.dataset_meta['classes'] == CLASSES
    assert isinstance(model.cfg, Config)
    saved = torch.load(checkpoint, weights_only=True)['state_dict']
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    return tmp_path / 'a.png', np.ascontiguousarray(pixels[:, :, ::-1])


def test_path_and_array_give_the_same(model, picture):
    path, array = picture
    found = [inference_detector(model, image).pred_instances for image in (path, str(path), array)]
    assert len(found[0]) > 0
    for other in found[1:]:
        assert torch.equal(found[0].bboxes, other.bboxes)
        assert torch.equal(found[0].scores, other.scores)
    # In pixels of the image, 90 wide and 60 high, though the network saw a larger one.
    assert found[0].bboxes[:, 0::2].max() <= 90 and found[0].bboxes[:, 1::2].max() <= 60
    assert found[0].bboxes.max() > 60
    assert (found[0].scores.diff() <= 0).all()


def test_a_list_gives_a_list(model, picture):
    path, array = picture
    single = inference_detector(model, path)
    found = inference_detector(model, [path, array])
    assert isinstance(found, list) and len(found) == 2
    assert torch.equal(found[1].pred_instances.bboxes, single.pred_instances.bboxes)
    assert [s.img_id for s in found] == [0, 1]
    assert inference_detector(model, []) == []


def test_bfloat16(config, checkpoint, model, picture):
    """The heads' outputs are rounded, so scores are close and not the same."""
    rough = init_detector(config, checkpoint, device='cpu', cfg_options=SMALL, amp=True)
    kinds = []
    rough.backbone.register_forward_hook(lambda module, inputs, outputs: kinds.append(outputs[0].dtype))
    found, expected = (inference_detector(m, picture[0]).pred_instances.scores[:5] for m in (rough, model))
    assert kinds == [torch.bfloat16] and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    assert not torch.equal(found, expected)


@pytest.mark.parametrize(('shape', 'dtype'), [((4, 4), 'u1'), ((4, 4, 3), 'f4'), ((3, 4, 4), 'u1'), ((0, 4, 3), 'u1')])
def test_an_array_that_is_no_image(model, shape, dtype):
    with pytest.raises(DataError, match='expected'):
        inference_detector(model, np.zeros(shape, dtype))


def test_a_missing_image(model, tmp_path):
    with pytest.raises(DataError, match='not on disk'):
        inference_detector(model, tmp_path / 'none.jpg')


def test_config_object_without_checkpoint(config, tmp_path):
    """The names come from the config; overrides belong to a path."""
    cfg = load_config(config, SMALL)
    cfg.test_dataloader.dataset.metainfo = dict(classes=['u', 'v', 'w', 'x', 'y', 'z'])
    model = init_detector(cfg, device='cpu')
    assert model.dataset_meta['classes'] == ('u', 'v', 'w', 'x', 'y', 'z')
    assert 'model' in cfg
    with pytest.raises(ConfigError, match='cfg_options'):
        init_detector(cfg, cfg_options=SMALL)


def test_names_of_the_annotations_or_numbers(config, coco_root):
    cfg = load_config(config, SMALL)
    cfg.test_dataloader.dataset.data_root = str(coco_root.root / 'none')
    assert init_detector(cfg, device='cpu').dataset_meta['classes'] == ('0', '1', '2', '3', '4', '5')
    cfg.test_dataloader.dataset.data_root = str(coco_root.root)
    cfg.model.roi_head.bbox_head.num_classes = len(coco_root.classes)
    assert init_detector(cfg, device='cpu').dataset_meta['classes'] == coco_root.classes
    assert not (coco_root.root / 'none').exists()  # the drawn data set is not drawn for its names


def test_class_counts_must_agree(config, checkpoint):
    with pytest.raises(ConfigError, match='trained on 6 classes, the config has 9'):
        init_detector(config, checkpoint, cfg_options=[*SMALL, 'model.roi_head.bbox_head.num_classes=9'])


def test_another_models_checkpoint(config, checkpoint):
    with pytest.raises(CheckpointError, match='does not fit FasterRCNN'):
        init_detector(config, checkpoint, cfg_options=['model.roi_head.bbox_head.fc_channels=16'])


def test_missing_files(config, tmp_path):
    with pytest.raises(CheckpointError, match='no such file'):
        init_detector(config, tmp_path / 'none.pth', cfg_options=SMALL)
    with pytest.raises(ConfigError):
        init_detector(tmp_path / 'none.py')


PLAIN = [*SMALL, 'model.neck.norm=None', 'model.roi_head.bbox_head.class_agnostic=False']


@pytest.fixture(scope='module')
def native(config, tmp_path_factory):
    """A checkpoint without norms in the FPN, which no other layout has, and its detections."""
    path = tmp_path_factory.mktemp('native') / 'native.pth'
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(load_config(config, PLAIN).model)
    model.roi_head.bbox_head.fc_cls.bias.data = torch.arange(7.0)  # classes and background can be told apart
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': CLASSES}}}, path)
    return path


@pytest.mark.parametrize(
    ('layout', 'name'),
    [
        ('frdet', 'a.pth'),
        ('mmdet2', 'a.pth'),
        ('mmdet3', 'a.pth'),
        ('detectron2', 'a.pth'),
        ('detectron2', 'a.pkl'),
        ('torchvision', 'a.pth'),
    ],
)
def test_every_layout_detects_the_same(config, native, tmp_path, picture, capfd, layout, name):
    expected = inference_detector(init_detector(config, native, 'cpu', PLAIN), picture[0]).pred_instances
    write_detector(tmp_path / name, read_detector(native)[0], layout, CLASSES)
    capfd.readouterr()
    model = init_detector(config, tmp_path / name, 'cpu', PLAIN)
    lines = [line for line in ''.join(capfd.readouterr()).splitlines() if 'layout' in line]
    recognised = 'frdet' if layout.startswith('mmdet') else layout
    assert len(lines) == 1 and name in lines[0] and f'layout {recognised}' in lines[0]
    if recognised == 'frdet':
        assert model.dataset_meta['classes'] == CLASSES
    found = inference_detector(model, picture[0]).pred_instances
    assert len(found) > 0
    for key in ('bboxes', 'scores', 'labels'):
        assert torch.equal(found[key], expected[key])


def test_another_projects_checkpoint_that_does_not_fit(config, native, tmp_path):
    state = read_detector(native)[0]
    write_detector(tmp_path / 'a.pkl', state, 'detectron2')
    with pytest.raises(CheckpointError, match=r'a\.pkl \(layout detectron2\) does not fit.*shared_fcs\.0\.weight'):
        init_detector(config, tmp_path / 'a.pkl', 'cpu', [*PLAIN, 'model.roi_head.bbox_head.fc_channels=16'])
    mask = {**convert_state_dict(state, target='detectron2'), 'roi_heads.mask_head.deconv.weight': torch.ones(1)}
    torch.save({'model': mask}, tmp_path / 'mask.pth')
    with pytest.raises(CheckpointError, match='detectron2, but it has a mask head: roi_heads.mask_head.deconv.weight'):
        init_detector(config, tmp_path / 'mask.pth', 'cpu', PLAIN)
    torch.save({'w': torch.ones(1)}, tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='names of no known project'):
        init_detector(config, tmp_path / 'w.pth', 'cpu', PLAIN)


@pytest.mark.parametrize('name', ['trap.pth', 'trap.pkl'])
def test_code_is_refused_and_not_run(config, tmp_path, name):
    with open(tmp_path / name, 'wb') as file:
        (pickle.dump if name.endswith('pkl') else torch.save)({'model': Trap(tmp_path / 'sprung')}, file)
    with pytest.raises(CheckpointError, match='refused'):
        init_detector(config, tmp_path / name, 'cpu', SMALL)
    assert not (tmp_path / 'sprung').exists()
