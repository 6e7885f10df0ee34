"""A detector from a config and a checkpoint, on images.

Whatever is given as an image: its pixels, blue first, or a sentence that says what to give.
"""

import io
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from frdet.apis import DetInferencer, inference_detector, init_detector
from frdet.apis.images import as_record, is_single, prepare
from frdet.checkpoints import convert_state_dict, read_detector, write_detector
from frdet.config import dump_config, load_config
from frdet.datasets.transforms.loading import read_image
from frdet.errors import BrokenImageError, CheckpointError, ConfigError, DataError
from frdet.registry import DETECTORS
from tests.checkpoints.test_reading import Trap
from tests.engine.toy import ROOT
from tests.weights import NARROW_WORDS

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'
SMALL = [
    *NARROW_WORDS,
    'model.roi_head.bbox_head.fc_channels=32',
    'model.roi_head.score_thr=0.0',
    'model.rpn_head.post_nms_test=20',
]
CLASSES = ('a', 'b', 'c', 'd', 'e', 'f')


@pytest.fixture(scope='module')
def config():
    return ROOT / CONFIG


@pytest.fixture(scope='module')
def checkpoint(config, tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(load_config(config, SMALL).model)
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': CLASSES}}}, path)
    return path


def with_config(checkpoint, path, text, **meta):
    """A copy of a checkpoint that holds the text of a config, as those of training do."""
    content = torch.load(checkpoint, weights_only=True)
    content['meta'] = {**content['meta'], 'cfg': text, **meta}
    torch.save(content, path)
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


def test_a_checkpoint_alone(config, checkpoint, model, picture, tmp_path, capfd, monkeypatch):
    """It holds its config, its classes and their ids. No annotation is read: there is no such folder."""
    cfg = load_config(config, [*SMALL, 'test_dataloader.dataset.data_root=/none', 'load_from=/none/a.pth'])
    path = with_config(checkpoint, tmp_path / 'a.pth', dump_config(cfg), category_ids=[3, 1, 4, 15, None, 'x'])
    expected = inference_detector(model, picture[0]).pred_instances
    detector = DetInferencer(path, device='cpu')
    found = inference_detector(detector.model, picture[0]).pred_instances
    assert torch.equal(found.bboxes, expected.bboxes) and torch.equal(found.scores, expected.scores)
    assert detector.classes == CLASSES and detector.model.cfg.model == cfg.model
    assert detector.category_ids() == [3, 1, 4, 15, None, 'x']
    assert 'WARNING' not in ''.join(capfd.readouterr())
    page = (ROOT / 'docs/detect.md').read_text()
    shutil.copy(path, tmp_path / 'epoch_12.pth')
    shutil.copy(picture[0], tmp_path / 'street.jpg')
    monkeypatch.chdir(tmp_path)
    exec(re.search(r'```python\n(.*?)```', page, re.S)[1].replace('score_thr=0.5', 'score_thr=0'), {})
    _, first, *_ = (line for line in capfd.readouterr().out.splitlines() if 'mmengine' not in line)
    name, score, *box = first.split()
    assert name == CLASSES[expected.labels[0]] and float(score) == pytest.approx(float(expected.scores[0]), abs=1e-3)
    assert [float(value) for value in box] == pytest.approx(expected.bboxes[0].tolist(), abs=0.06)
    assert (tmp_path / 'found.jpg').stat().st_size
    changed = init_detector(checkpoint=str(path), device='cpu', cfg_options=['model.roi_head.score_thr=0.9'])
    assert changed.roi_head.score_thr == 0.9
    with pytest.raises(ConfigError, match='score_th'):
        init_detector(path, device='cpu', cfg_options=['model.roi_head.score_th=0.9'])


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ("import os\nos.mkdir('sprung')", r"its config:1: found 'import os', and a config read as data holds"),
        ("x = __import__('os').mkdir('sprung')", 'its config:1: found'),
        ("custom_imports = dict(imports=['sprung_module'])", 'needs the modules sprung_module, which are not imported'),
        ("model = dict(type='os.mkdir', name='sprung')", r"model.type: 'os.mkdir' is not registered"),
        ("model = dict(type='MyNet')", r"'MyNet' is not registered"),
        ("model = dict(type='FasterRCNN', bacbone=1)", 'bacbone'),
        ('model = dict(', 'its config:1 is no Python'),
    ],
)
def test_a_config_in_a_checkpoint_is_data(checkpoint, tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'sprung_module.py').write_text("import os\nos.mkdir('sprung')")
    monkeypatch.syspath_prepend(tmp_path)
    path = with_config(checkpoint, tmp_path / 'a.pth', text)
    with pytest.raises(ConfigError, match=rf'a\.pth cannot be used without a config file: .*{words}') as error:
        init_detector(path)
    assert str(error.value).splitlines()[1].startswith('Give the path of the config before it')
    assert not (tmp_path / 'sprung').exists()


def test_modules_that_are_imported_already(config, checkpoint, tmp_path):
    text = dump_config(load_config(config, SMALL)) + "custom_imports = dict(imports=['tests.engine.toy'])\n"
    init_detector(with_config(checkpoint, tmp_path / 'a.pth', text), device='cpu')


def test_config_and_checkpoint_are_told_apart(config, checkpoint, tmp_path, capfd):
    with pytest.raises(CheckpointError, match=r'a\.pth does not hold the config of its training: give the path of the'):
        init_detector(checkpoint)
    with pytest.raises(ConfigError, match='No checkpoint is given: expected the path of one'):
        init_detector()
    with pytest.raises(ConfigError, match=r'r18_fpn_shapes\.py is a config: give the checkpoint after it'):
        init_detector(checkpoint, config)
    with pytest.raises(ConfigError, match=r'a\.pth stands where a config belongs, and cpu where its checkpoint'):
        init_detector(checkpoint, 'cpu')
    for wrong in (({'state_dict': {}},), (config, {'state_dict': {}})):
        with pytest.raises(ConfigError, match='Found an object of type dict: expected the path of a checkpoint'):
            init_detector(*wrong)
    with pytest.raises(CheckpointError, match=r'none\.pth: no such file'):
        init_detector(tmp_path / 'none.pth')
    capfd.readouterr()
    init_detector(config, device='cpu', cfg_options=SMALL)
    assert 'No checkpoint is given: weights and detections are random' in ''.join(capfd.readouterr())


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
    assert len(lines) == 1 and name in lines[0] and f'layout {layout}' in lines[0]
    if layout in ('frdet', 'mmdet2', 'mmdet3'):
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
    keypoints = {
        **convert_state_dict(state, target='detectron2'),
        'roi_heads.keypoint_head.conv_fcn1.weight': torch.ones(1),
    }
    torch.save({'model': keypoints}, tmp_path / 'k.pth')
    with pytest.raises(CheckpointError, match=r'a keypoint head: roi_heads\.keypoint_head\.conv_fcn1'):
        init_detector(config, tmp_path / 'k.pth', 'cpu', PLAIN)
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


# 2 x 3 pixels, every value another, red first
RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
BGR = RGB[..., [2, 1, 0]].copy()


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ('image', 'order'),
    [
        (BGR, 'bgr'),
        (RGB, 'rgb'),
        (read_only(BGR), 'bgr'),
        (read_only(RGB), 'rgb'),
        (np.asfortranarray(BGR), 'bgr'),
        (RGB[..., ::-1], 'bgr'),  # negative strides
        (np.repeat(RGB, 2, axis=1)[:, ::2], 'rgb'),  # rows with gaps
        (torch.from_numpy(BGR).permute(2, 0, 1), 'bgr'),
        (torch.from_numpy(RGB).permute(2, 0, 1).contiguous(), 'rgb'),
        (Image.fromarray(RGB), 'bgr'),  # its mode tells, whatever the order of arrays
        (Image.fromarray(RGB), 'rgb'),
        (Image.fromarray(np.dstack([RGB, RGB[..., 0]])), 'bgr'),  # RGBA: the colours
    ],
)
def test_pixels(image, order):
    record = as_record(image, 7, order)
    assert record['img_id'] == 7
    np.testing.assert_array_equal(record['img'], BGR)
    assert record['img'].flags.c_contiguous and record['img'].flags.writeable


@pytest.mark.parametrize(
    ('mode', 'pixel', 'expected'),
    [
        ('L', 90, (90, 90, 90)),
        ('1', 1, (255, 255, 255)),
        ('LA', (90, 7), (90, 90, 90)),
        ('CMYK', (0, 255, 255, 0), (0, 0, 255)),  # red
        ('I;16', 0x5A10, (0x5A, 0x5A, 0x5A)),  # the upper byte
        ('P', 0, (30, 20, 10)),
    ],
)
def test_modes_of_pil_images(mode, pixel, expected):
    image = Image.new(mode, (2, 1), pixel)
    if mode == 'P':
        image.putpalette([10, 20, 30])
    assert as_record(image, 0)['img'].tolist() == [[list(expected)] * 2]


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('ending', ['png', 'jpg', 'tif', 'webp'])
def test_a_pil_image_is_turned_as_its_file_is(tmp_path, ending, orientation):
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'a.{ending}'
    Image.fromarray(pixels).save(path, exif=exif)
    image = Image.open(path)
    size = image.size
    np.testing.assert_array_equal(as_record(image, 0)['img'], read_image(str(path)))
    np.testing.assert_array_equal(as_record(Image.open(path).convert('RGB'), 0)['img'], read_image(str(path)))
    assert as_record(image, 0)['img'].shape == ((8, 12, 3) if orientation < 5 else (12, 8, 3))
    if ending != 'tif':  # which Pillow itself turns
        assert image.size == size


@pytest.mark.parametrize('path', ['a/b.jpg', Path('a/b.jpg'), np.str_('a/b.jpg')])
def test_paths(path):
    assert as_record(path, 3) == {'img_path': 'a/b.jpg', 'img_id': 3}


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        (
            torch.zeros(3, 2, 2),
            r'a tensor \(3, 2, 2\) of float32: expected \(3, H, W\) of uint8, BGR.* \(image \* 255\)',
        ),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), r'\(2, 3, 3\) of uint8: .*image\.permute\(2, 0, 1\)'),
        (torch.zeros(4, 2, 3, dtype=torch.uint8), r'\(4, 2, 3\) of uint8: .*image\[:3\]'),
        (torch.zeros(1, 2, 3, dtype=torch.uint8), r'image\.expand\(3, -1, -1\)'),
        (torch.zeros(2, 3, dtype=torch.uint8), r'image\.expand\(3, -1, -1\)'),
        (torch.zeros(3, 0, 3, dtype=torch.uint8), r'\(3, 0, 3\) of uint8: expected'),
        (torch.zeros(1, 3, 2, 3, dtype=torch.uint8), r'\(1, 3, 2, 3\) of uint8: expected'),
        (b'\x89PNG', r'of type bytes: .*PIL\.Image\.open\(io\.BytesIO\(data\)\)'),
        (bytearray(3), 'of type bytearray: .*Decode it first'),
        (io.BytesIO(b'\x89PNG'), 'of type BytesIO: .*Decode it first'),
        (None, 'of type NoneType: expected a path, a PIL image, a NumPy array'),
        (0, 'of type int: expected'),
        ({'img': RGB}, 'of type dict: expected'),
        ([RGB], 'of type list: expected'),
        (RGB / 255, r'\(2, 3, 3\) of float64: expected \(H, W, 3\) of uint8, BGR.* \(image \* 255\)'),
        (RGB.astype(np.float32), 'of float32: expected .*255'),
        (RGB.astype(np.uint16), r'of uint16: .*image >> 8'),
        (RGB.astype(np.int64), 'of int64: expected'),
        (RGB > 9, 'of bool: expected'),
        (np.zeros((3, 4, 5), np.uint8), r'\(3, 4, 5\) .*image\.transpose\(1, 2, 0\)'),
        (RGB[..., 0], r'\(2, 3\) .*numpy\.dstack\(\[image\] \* 3\)'),
        (RGB[..., :1], r'\(2, 3, 1\) .*numpy\.dstack'),
        (np.zeros((2, 3, 4), np.uint8), r'\(2, 3, 4\) .*image\[\.\.\., :3\]'),
        (RGB[None], r'\(1, 2, 3, 3\) of uint8: expected'),
        (RGB[:0], r'\(0, 3, 3\) of uint8: expected'),
        (np.array(['a.jpg', 'b.jpg']), r'\(2,\) of <U5: expected'),
    ],
)
def test_what_is_refused(image, words):
    with pytest.raises(DataError, match=f'Image 4 .*{words}'):
        as_record(image, 4)


def test_the_error_names_the_order_of_the_caller():
    with pytest.raises(DataError, match='of uint8, RGB'):
        as_record(RGB / 255, 0, 'rgb')
    with pytest.raises(ConfigError, match="channel_order is 'RGB': expected 'bgr'"):
        as_record(RGB, 0, 'RGB')


def test_a_pil_image_that_cannot_be_decoded(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    content = (tmp_path / 'a.png').read_bytes()
    cut = Image.open(io.BytesIO(content[: len(content) // 2]))
    with Image.open(tmp_path / 'a.png') as closed:
        pass
    for image, reason in ((cut, 'truncated'), (closed, ''), (Image.new('F', (2, 2)), 'floating-point')):
        with pytest.raises(
            BrokenImageError, match=rf'Image 2, a PIL image, cannot be decoded \(.*{reason}.*: its file'
        ):
            as_record(image, 2)


@pytest.mark.parametrize(
    ('images', 'expected'),
    [
        ('a.jpg', True),
        (Path('a.jpg'), True),
        (RGB, True),
        (RGB[..., 0], True),
        (Image.fromarray(RGB), True),
        (torch.zeros(3, 4, 4), True),
        (torch.zeros(2, 3, 4, 4), False),
        (b'', True),
        (io.BytesIO(), True),
        (None, True),
        ({}, True),
        ([], False),
        ([RGB], False),
        (('a.jpg',), False),
        ((path for path in ['a.jpg']), False),
        (np.stack([RGB, RGB]), False),
    ],
)
def test_one_or_several(images, expected):
    assert is_single(images) == expected


@pytest.mark.parametrize(
    ('image', 'words'),
    [
        ('{}', 'Image {} is a folder: give the paths of the images in it'),
        ('{}/none.jpg', 'Image {}/none.jpg is not on disk: check the path'),
        ('https://a.org/b.jpg', 'Image https://a.org/b.jpg is an address: download it'),
        ('s3://a/b.jpg', 's3://a/b.jpg is an address'),
        ('{}/there.txt', 'Image {}/there.txt cannot be decoded'),
    ],
)
@pytest.mark.parametrize('kind', [str, Path])
def test_an_error_of_a_path_speaks_of_the_path(tmp_path, image, words, kind):
    (tmp_path / 'there.txt').write_text('no image')
    path = kind(image.format(tmp_path))
    words = words.format(tmp_path) if kind is str else words.format(tmp_path).replace('://', ':/')
    with pytest.raises(BrokenImageError) as error:
        list(prepare([path], lambda record: read_image(record['img_path'], name=f'Image {path} (id 0)')))
    assert words in str(error.value) and 'annotations' not in str(error.value) and '(id' not in str(error.value)
