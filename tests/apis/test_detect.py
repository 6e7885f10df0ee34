"""Both entries of inference take the same images in the same order of channels, and find the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frdet.apis import Detected, DetInferencer, inference_detector
from frdet.config import load_config
from frdet.errors import BrokenImageError, ConfigError, DataError
from frdet.structures import DetDataSample
from tests.engine.toy import ROOT

OPTIONS = [
    'model.roi_head.bbox_head.fc_channels=32',
    'model.roi_head.score_thr=0.0',
    'model.rpn_head.post_nms_test=20',
    'model.backbone.init_cfg=None',
    'test_dataloader.dataset.pipeline.1.short_side=32',
    'test_dataloader.dataset.metainfo.classes=[a,b,c,d,e,f]',
]


@pytest.fixture(scope='module')
def detector():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cfg = load_config(ROOT / 'configs/quickstart/r18_fpn_shapes.py', OPTIONS)
        return DetInferencer(cfg, None, 'cpu', score_thr=0.0)


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    """A file, whose EXIF orientation makes it upright, and its colours (60, 40, 3), red first."""
    path = tmp_path_factory.mktemp('picture') / 'a.png'
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    pixels[..., 0] = 250  # exchanged colours are seen in the detections
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    Image.fromarray(pixels).save(path, exif=exif)
    return path, np.rot90(pixels, -1)


FORMS = {
    'text': (lambda path, rgb: str(path), {}),
    'Path': (lambda path, rgb: path, {}),
    'PIL image': (lambda path, rgb: Image.open(path), {}),
    'PIL image, converted': (lambda path, rgb: Image.open(path).convert('RGBA'), {}),
    'PIL image, turned already': (lambda path, rgb: Image.fromarray(np.ascontiguousarray(rgb)), {}),
    'BGR': (lambda path, rgb: rgb[..., ::-1].copy(), {}),
    'BGR, said': (lambda path, rgb: rgb[..., ::-1], {'channel_order': 'bgr'}),
    'RGB': (lambda path, rgb: rgb, {'channel_order': 'rgb'}),
    'path, whatever arrays are': (lambda path, rgb: path, {'channel_order': 'rgb'}),
    'PIL image, whatever arrays are': (lambda path, rgb: Image.open(path), {'channel_order': 'rgb'}),
}


def same(found, expected):
    """Whether a result of any of the two entries is the sample ``expected``."""
    if isinstance(found, DetDataSample):
        return all(found.pred_instances[k].equal(expected.pred_instances[k]) for k in ('bboxes', 'scores', 'labels'))
    assert isinstance(found, Detected)
    arrays = (found.boxes, found.scores, found.labels)
    keys = ('bboxes', 'scores', 'labels')
    return all(np.array_equal(a, expected.pred_instances[k].numpy()) for a, k in zip(arrays, keys, strict=True))


@pytest.fixture(scope='module')
def expected(detector, picture):
    sample = inference_detector(detector.model, picture[0])
    assert len(sample.pred_instances) > 5
    return sample


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_what_the_path_gives(detector, picture, expected, form):
    make, options = FORMS[form]
    assert same(inference_detector(detector.model, make(*picture), **options), expected)
    found = detector(make(*picture), **options)
    assert same(found, expected)
    np.testing.assert_array_equal(found.image, picture[1])  # red first, and upright


def test_the_default_is_not_rgb(detector, picture, expected):
    """So that the test above can see it."""
    assert not same(detector(picture[1]), expected)
    assert not same(inference_detector(detector.model, picture[1]), expected)


def test_several(detector, picture, expected):
    path, rgb = picture
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    for run in (detector, lambda images, *more: inference_detector(detector.model, images, *more)):
        for images in (
            [path, bgr],
            (str(path), Image.open(path)),
            (image for image in (path, bgr)),
            np.stack([bgr, bgr]),
            iter([bgr, path]),
        ):
            found = run(images)
            assert isinstance(found, list) and len(found) == 2 and all(same(one, expected) for one in found)
        assert len(run([path] * 3, 2)) == 3
        assert run([]) == [] and run(iter(())) == []
    streamed = list(detector.stream(path))  # a path is no list of letters
    assert len(streamed) == 1 and same(streamed[0], expected)


def test_frames_that_come_in_one_buffer(detector, picture):
    """As from some cameras: each is read before the next one is asked for."""
    frames = [np.full((64, 64, 3), shade, np.uint8) for shade in (10, 120, 250)]
    buffer = np.empty_like(frames[0])

    def camera():
        for frame in frames:
            buffer[:] = frame
            yield buffer

    for found, frame in zip(detector.stream(camera(), 3), frames, strict=True):
        np.testing.assert_array_equal(found.image, frame[..., ::-1])
        np.testing.assert_allclose(found.scores, detector(frame).scores, atol=1e-4)


@pytest.mark.parametrize('batch_size', [0, -1, 1.5, True, None])
def test_batch_size(detector, picture, batch_size):
    for run in (detector, lambda *args: inference_detector(detector.model, *args)):
        for images in (picture[0], [picture[0]], []):
            with pytest.raises(ConfigError, match=f'batch_size is {batch_size}: expected at least 1'):
                run(images, batch_size)
    with pytest.raises(ConfigError, match='batch_size'):
        detector.stream([], batch_size)  # at once, not at the first image


def test_words(detector, picture):
    tensor = torch.zeros(3, 4, 4, dtype=torch.uint8)
    for run in (detector, lambda images: inference_detector(detector.model, images)):
        for images in (tensor, [tensor]):
            with pytest.raises(DataError, match='Image 0 is of type Tensor'):
                run(images)
        with pytest.raises(DataError, match='Image 1 is an array'):
            run([picture[0], np.zeros((3, 4, 4), np.uint8)])
        with pytest.raises(BrokenImageError, match='Image none.jpg is not on disk: check the path'):
            run('none.jpg')
    with pytest.raises(ConfigError, match='take it from init_detector'):
        inference_detector(torch.nn.Identity(), picture[0])


def test_broken_images_may_be_passed_over(detector, picture, expected):
    errors = []
    found = list(detector.stream(['none.jpg', picture[0], Path('gone.png')], 2, on_broken=errors.append))
    assert len(found) == 1 and same(found[0], expected) and found[0].number == 1
    assert [str(error).split()[1] for error in errors] == ['none.jpg', 'gone.png']
    with pytest.raises(DataError, match='of type NoneType'):  # no broken image, but a wrong call
        list(detector.stream([None], on_broken=errors.append))


def test_pipelines_of_test_data(detector, picture, expected):
    """In wrappers, and in data sets that are joined; where these differ there is no right one."""
    model, whole = detector.model, detector.model.cfg
    leaf = whole.test_dataloader.dataset.to_dict()
    other = {**leaf, 'pipeline': [*leaf['pipeline'][:1], *leaf['pipeline'][2:]]}
    try:
        model.cfg = whole.copy()
        joined = dict(type='ConcatDataset', datasets=[leaf, dict(type='RepeatDataset', times=2, dataset=leaf)])
        for dataset in (joined, dict(type='RepeatDataset', times=3, dataset=joined)):
            model.cfg.test_dataloader = dict(dataset=dataset)
            assert same(detector(picture[0]), expected)
        for dataset, words in (
            (dict(type='ConcatDataset', datasets=[leaf, other]), 'different pipelines'),
            (dict(type='A'), 'test_dataloader.dataset has no pipeline'),
            (None, 'test_dataloader.dataset has no pipeline'),
        ):
            model.cfg.test_dataloader = dict(dataset=dataset)
            with pytest.raises(ConfigError, match=words):
                detector(picture[0])
    finally:
        model.cfg = whole


def test_records_of_classes_without_an_id():
    """An unused label, as torchvision's N/A, is no category."""
    boxes, scores = np.float32([[1, 2, 4, 6], [0, 0, 1, 1]]), np.float32([0.5, 0.25])
    found = Detected(np.zeros((9, 9, 3), np.uint8), boxes, scores, np.int64([1, 0]), ('N/A', 'cat'))
    record = dict(image_id=3, category_id=17, bbox=[1, 2, 3, 4], score=0.5, category_name='cat', file_name='a.jpg')
    assert found.to_coco(3, [None, 17], file_name='a.jpg') == [record]


def test_the_picture_of_a_result_is_the_image_itself(detector, picture):
    """Not what the pipeline makes of it, which here is mirrored."""
    whole = detector.model.cfg
    try:
        detector.model.cfg = whole.copy()
        detector.model.cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='RandomFlip', prob=1.0))
        np.testing.assert_array_equal(detector(picture[0]).image, picture[1])
    finally:
        detector.model.cfg = whole
