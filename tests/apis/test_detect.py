"""Both entries of inference take the same images in the same order of channels, and find the same."""

import dataclasses
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from frdet.apis import Detected, DetInferencer, detect, inference_detector
from frdet.apis.detect import CategoryIds
from frdet.apis.inference import predict
from frdet.config import load_config
from frdet.errors import BrokenImageError, ConfigError, DataError
from frdet.structures import DetDataSample
from frdet.visualization import draw_boxes
from tests.engine.toy import ROOT
from tests.weights import NARROW_WORDS

OPTIONS = [
    *NARROW_WORDS,
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
    'BGR tensor': (lambda path, rgb: torch.from_numpy(rgb[..., ::-1].copy()).permute(2, 0, 1), {}),
    'RGB tensor': (lambda path, rgb: torch.from_numpy(rgb.copy()).permute(2, 0, 1), {'channel_order': 'rgb'}),
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
            torch.from_numpy(np.stack([bgr, bgr])).permute(0, 3, 1, 2),
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
    tensor = torch.zeros(3, 4, 4)
    for run in (detector, lambda images: inference_detector(detector.model, images)):
        for images in (tensor, [tensor]):
            with pytest.raises(DataError, match='Image 0 is a tensor'):
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


def result(**more):
    """Two detections in an image of 9 x 9 pixels."""
    boxes, scores = np.float32([[1, 2, 4, 6], [0, 0, 1, 1]]), np.float32([0.5, 0.25])
    return Detected(np.zeros((9, 9, 3), np.uint8), boxes, scores, np.int64([1, 0]), ('N/A', 'cat'), **more)


def test_records_of_classes_without_an_id():
    """An unused label, as torchvision's N/A, is no category."""
    record = dict(image_id=3, category_id=17, bbox=[1, 2, 3, 4], score=0.5, category_name='cat', file_name='a.jpg')
    assert result().to_coco(3, [None, 17], file_name='a.jpg') == [record]


def test_records_without_arguments(detector, picture):
    """The number of the image, and the ids that the detector knows: here 1, 2, ... because there are no annotations."""
    assert [(r['image_id'], r['category_id']) for r in result(number=7).to_coco()] == [(7, 2), (7, 1)]
    known = SimpleNamespace(dataset_meta={'classes': ('N/A', 'cat'), 'category_ids': [None, 'x9']}, cfg=None)
    found = result(categories=CategoryIds(known))
    assert [r['category_id'] for r in found.to_coco()] == ['x9']
    assert pickle.loads(pickle.dumps(found)).to_coco() == found.to_coco()
    _, second = detector([picture[0]] * 2)
    assert second.to_coco() == second.to_coco(1, [1, 2, 3, 4, 5, 6]) == second.to_coco(1, detector.category_ids())


def test_masks_are_kept_as_pycocotools_writes_them():
    """The second one is empty."""
    masks = np.random.default_rng(0).random((2, 9, 12)) < [[[0.4]], [[0.0]]]
    rles = [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
    rles = [{'size': [9, 12], 'counts': rle['counts'].decode()} for rle in rles]
    found = dataclasses.replace(result(segmentations=rles), image=np.full((9, 12, 3), 128, np.uint8))
    assert found.masks.dtype == bool and np.array_equal(found.masks, masks)
    assert np.array_equal(pickle.loads(pickle.dumps(found)).masks, masks)
    assert [r['segmentation'] for r in found.to_coco()] == rles
    assert json.loads(json.dumps(found.to_coco()))[0]['segmentation'] == rles[0]
    drawn, boxes_alone = found.draw(), dataclasses.replace(found, segmentations=None).draw()
    given = found.image, found.boxes, found.labels, found.scores, found.classes
    np.testing.assert_array_equal(drawn, draw_boxes(*given, masks=masks))
    assert (drawn != boxes_alone).any() and 'segmentation' not in result().to_coco()[0] and result().masks is None
    none = Detected(found.image, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), found.classes, segmentations=[])
    assert none.masks.shape == (0, 9, 12) and none.draw().shape == drawn.shape


def test_masks_of_a_detector(detector, picture, expected, monkeypatch):
    """Those of the detections that are kept, as the detector gives them."""
    given = {}

    def with_masks(model, batch):
        (sample,) = predict(model, batch)
        found = sample.pred_instances
        found.masks = torch.rand(len(found), *sample.ori_shape, generator=torch.Generator().manual_seed(0)) < 0.5
        given.update(found.items())
        return [sample]

    monkeypatch.setattr(detect, 'predict', with_masks)
    with monkeypatch.context() as patch:
        patch.setattr(detector, 'score_thr', least := float(expected.pred_instances.scores.median()))
        patch.setattr(detector, '_kept', other := expected.pred_instances.labels[1:].unique()[:1])
        found = detector(picture[0])
    kept = (given['scores'] >= least) & torch.isin(given['labels'], other)
    assert 0 < len(found) < len(kept)
    assert np.array_equal(found.masks, given['masks'][kept].numpy())
    assert found.segmentations[0]['size'] == list(picture[1].shape[:2])


def test_table():
    found = result(number=7)
    assert found.to_table() == [
        dict(image=7, name='cat', score=0.5, x1=1, y1=2, x2=4, y2=6),
        dict(image=7, name='N/A', score=0.25, x1=0, y1=0, x2=1, y2=1),
    ]
    assert result(path='a/b.jpg').to_table()[0]['image'] == 'a/b.jpg'
    assert str(found).splitlines() == [
        'name  score   x1   y1   x2   y2',
        'cat   0.500  1.0  2.0  4.0  6.0',
        'N/A   0.250  0.0  0.0  1.0  1.0',
    ]
    assert len(found) == 2 and repr(found) == 'Detected(2 in 9x9 pixels: cat 0.50, N/A 0.25)'


def test_saving(detector, picture, tmp_path):
    """Over a former picture, but never over the image."""
    found = detector(picture[0])
    for _ in range(2):
        found.save(tmp_path / 'drawn.png')
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'drawn.png')), found.draw())
    before = picture[0].read_bytes()
    (tmp_path / 'link.png').symlink_to(picture[0])
    for path, words in (
        (picture[0], r'a\.png is the image itself, and would be overwritten: choose another path'),
        (tmp_path / 'link.png', 'is the image itself'),
        (tmp_path / 'none/a.png', r'cannot be written \(No such file or directory\): expected an existing folder'),
        (tmp_path / 'ending', r'cannot be written \(unknown file extension: \)'),
    ):
        with pytest.raises(DataError, match=words):
            found.save(path)
    assert picture[0].read_bytes() == before and not (tmp_path / 'ending').exists()
    detector(picture[1], channel_order='rgb').save(tmp_path / 'a.jpg')  # an array has no file


def test_the_picture_of_a_result_is_the_image_itself(detector, picture):
    """Not what the pipeline makes of it, which here is mirrored."""
    whole = detector.model.cfg
    try:
        detector.model.cfg = whole.copy()
        detector.model.cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='RandomFlip', prob=1.0))
        np.testing.assert_array_equal(detector(picture[0]).image, picture[1])
    finally:
        detector.model.cfg = whole
