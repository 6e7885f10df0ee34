import math

import mmcv
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms.v2 import functional as F

from frdet.datasets.transforms import RandomFlip, Resize, ResizeShortestEdge, geometry, read_image
from frdet.datasets.transforms.geometry import BACKENDS, shortest_edge_size
from frdet.errors import ConfigError


@pytest.mark.parametrize(
    ('height', 'width', 'expected'),
    [
        (480, 640, (800, 1067)),  # 640 * 800/480 = 1066.67
        (640, 480, (1067, 800)),
        (480, 853, (750, 1333)),  # 1421.7 is above 1333; 1333/853 of 480 is 750.1
        (500, 500, (800, 800)),
        (427, 640, (800, 1199)),  # 1199.06
        (100, 400, (333, 1333)),  # 1333/3200 of 800 is 333.25
    ],
)
def test_sizes_by_hand(height, width, expected):
    assert shortest_edge_size(height, width, 800, 1333) == expected


def test_a_half_is_rounded_up():
    assert shortest_edge_size(4, 5, 2, 100) == (2, 3)  # 5 * 2/4 = 2.5


def make(height=60, width=100, boxes=((10, 20, 40, 60),)):
    image = np.random.randint(0, 255, (height, width, 3), dtype=np.uint8)
    return dict(img=image, gt_bboxes=np.array(boxes, dtype=np.float32).reshape(-1, 4))


@pytest.mark.parametrize(
    ('height', 'width', 'pillow', 'cv2', 'torch_size'),
    [
        (427, 640, (800, 1199), (800, 1199), (800, 1199)),  # 640 * 800/427 = 1199.06
        (480, 640, (800, 1067), (800, 1067), (800, 1066)),  # 1066.67
        (333, 500, (800, 1201), (800, 1201), (800, 1201)),  # 1201.2
        (480, 853, (750, 1333), (750, 1333), (750, 1333)),  # 1333/853 * 480 = 750.1
        (478, 853, (747, 1333), (747, 1333), (746, 1333)),  # 746.98
    ],
)
def test_each_backends_size_by_hand(height, width, pillow, cv2, torch_size):
    for backend, expected in (('pillow', pillow), ('cv2', cv2), ('torch', torch_size)):
        results = dict(img=np.zeros((height, width, 3), dtype=np.uint8))
        assert ResizeShortestEdge(short_side=800, backend=backend)(results)['img_shape'] == expected, backend


@pytest.mark.parametrize(
    ('height', 'width', 'pillow', 'cv2', 'torch_size'),
    [
        (1, 600, (2, 1333), (2, 1333), (2, 1333)),  # 1333/600 = 2.2
        (700, 1, (1333, 2), (1333, 2), (1333, 1)),  # 1333/700 = 1.9
        (2, 6000, (1, 1333), (1, 1333), (1, 1333)),  # 1333/6000 * 2 = 0.44
        (3, 6000, (1, 1333), (1, 1333), (1, 1333)),  # 0.67
        (1, 1, (800, 800), (800, 800), (800, 800)),
        (50, 20000, (3, 1333), (3, 1333), (3, 1333)),  # 1333/20000 * 50 = 3.3
        (3000, 1, (1333, 1), (1333, 1), (1333, 1)),  # 0.44
        (40000, 10, (1333, 1), (1333, 1), (1333, 1)),  # 0.33; longer than 16 bits count
    ],
)
def test_no_side_becomes_0(height, width, pillow, cv2, torch_size):
    for backend, expected in (('pillow', pillow), ('cv2', cv2), ('torch', torch_size)):
        image = np.full((height, width, 3), 77, dtype=np.uint8)
        results = dict(img=image, gt_bboxes=np.array([[0, 0, width, height]], np.float32))
        found = ResizeShortestEdge(short_side=800, backend=backend)(results)
        assert found['img'].shape == (*expected, 3), backend
        np.testing.assert_allclose(found['img'], 77, rtol=1e-5, err_msg=backend)
        assert found['scale_factor'] == pytest.approx((expected[1] / width, expected[0] / height)), backend
        np.testing.assert_allclose(found['gt_bboxes'], [[0, 0, expected[1], expected[0]]], rtol=1e-6)


sides = st.integers(1, 5000)


@given(height=sides, width=sides, short_side=st.integers(1, 1500), max_size=st.integers(1, 2000))
def test_sizes_that_are_not_0_are_as_their_projects_compute_them(height, width, short_side, max_size):
    # detectron2, ResizeShortestEdge.get_output_shape
    scale = short_side / min(height, width)
    newh, neww = (short_side, scale * width) if height < width else (scale * height, short_side)
    if max(newh, neww) > max_size:
        scale = max_size / max(newh, neww)
        newh, neww = newh * scale, neww * scale
    expected = {'pillow': (int(newh + 0.5), int(neww + 0.5))}
    # MMCV, rescale_size; torchvision, whose interpolate floors
    scale = min(max_size / max(height, width), short_side / min(height, width))
    expected['cv2'] = (int(height * scale + 0.5), int(width * scale + 0.5))
    expected['torch'] = (math.floor(height * scale), math.floor(width * scale))
    for backend, size in expected.items():
        assert BACKENDS[backend][0](height, width, short_side, max_size) == (max(1, size[0]), max(1, size[1])), backend


def test_torch_backend_is_torchvisions_transform(coco_root):
    """Of every real image: size, pixels to the last digits of float32, and boxes."""
    transform = GeneralizedRCNNTransform(100, 140, image_mean=[0.0] * 3, image_std=[1.0] * 3, size_divisible=1).eval()
    boxes = torch.tensor([[3.0, 4.0, 20.5, 31.0]])
    for path in sorted(coco_root.val_dir.glob('*.jpg'))[:20]:
        image = read_image(str(path))
        results = dict(img=image, gt_bboxes=boxes.numpy())
        found = ResizeShortestEdge(short_side=100, max_size=140, backend='torch')(results)
        rgb = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float()
        images, targets = transform([rgb], [{'boxes': boxes, 'labels': torch.tensor([1])}])
        assert found['img_shape'] == images.image_sizes[0]
        assert found['img'].dtype == np.float32
        expected = images.tensors[0].permute(1, 2, 0).numpy()[:, :, ::-1]
        np.testing.assert_allclose(found['img'], expected, rtol=0, atol=1e-3)
        np.testing.assert_allclose(found['gt_bboxes'], targets[0]['boxes'].numpy(), rtol=1e-6)


def test_cv2_backend_is_mmcvs(coco_root):
    for path in sorted(coco_root.val_dir.glob('*.jpg'))[:20]:
        image = read_image(str(path))
        np.testing.assert_array_equal(image, mmcv.imread(path))  # Pillow and OpenCV decode alike
        found = ResizeShortestEdge(short_side=100, max_size=140, backend='cv2')(dict(img=image))
        np.testing.assert_array_equal(found['img'], mmcv.imrescale(image, (140, 100)))


def test_without_antialiasing_single_pixels_are_missed():
    """Every fourth column is white; to a fourth of the width, an unfiltered sample lies between two black columns."""
    image = np.zeros((8, 64, 3), dtype=np.uint8)
    image[:, ::4] = 255
    means = {
        backend: ResizeShortestEdge(short_side=2, backend=backend)(dict(img=image))['img'].mean()
        for backend in ('pillow', 'cv2', 'torch')
    }
    assert means['cv2'] == means['torch'] == 0
    assert means['pillow'] == pytest.approx(255 / 4, abs=3)


def test_boxes_follow_each_side():
    """60x100 to 30x51: the rows are halved, the columns times 0.51."""
    results = Resize(scale=(30, 51))(make())
    assert results['img'].shape == (30, 51, 3)
    assert results['img_shape'] == (30, 51)
    assert results['scale_factor'] == pytest.approx((0.51, 0.5))
    np.testing.assert_allclose(results['gt_bboxes'], [[5.1, 10, 20.4, 30]], rtol=1e-6)
    assert results['gt_bboxes'].dtype == np.float32


def test_boxes_are_cut_to_the_image():
    results = Resize(scale=(120, 200))(make(boxes=[(-5, 10, 101, 70)]))
    np.testing.assert_array_equal(results['gt_bboxes'], [[0, 20, 200, 120]])


def test_two_resizes_multiply():
    results = Resize(scale=(60, 300))(Resize(scale=(30, 50))(make()))
    assert results['scale_factor'] == pytest.approx((3, 1))


def test_nothing_but_the_size_is_needed():
    results = ResizeShortestEdge(short_side=30)(dict(img=np.zeros((60, 100, 3), dtype=np.uint8)))
    assert results['img_shape'] == (30, 50)


def test_pixels_are_antialiased_bilinear(coco_root):
    """torchvision's antialiased bilinear is an independent implementation of the same filter."""
    image = read_image(str(sorted(coco_root.val_dir.glob('*.jpg'))[0]))
    resized = Resize(scale=(57, 75))(dict(img=image))['img']
    reference = F.resize(torch.from_numpy(image).permute(2, 0, 1), [57, 75], antialias=True).permute(1, 2, 0).numpy()
    assert np.abs(resized.astype(int) - reference.astype(int)).max() <= 1


def test_interpolation_is_a_choice():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[:, 2:] = 200
    assert set(np.unique(Resize(scale=(4, 7), interpolation='nearest')(dict(img=image))['img'])) == {0, 200}
    assert len(np.unique(Resize(scale=(4, 7))(dict(img=image))['img'])) > 2


def test_one_of_several_sides_is_drawn():
    resize = ResizeShortestEdge(short_side=(30, 45, 60))
    heights = [resize(make())['img_shape'][0] for _ in range(200)]
    assert set(heights) == {30, 45, 60}
    assert min(heights.count(h) for h in (30, 45, 60)) > 40  # 67 expected


def test_flip_by_hand():
    results = RandomFlip(prob=1.0)(make())
    np.testing.assert_array_equal(results['gt_bboxes'], [[60, 20, 90, 60]])
    assert results['flip'] is True
    twice = RandomFlip(prob=1.0)(results)
    np.testing.assert_array_equal(twice['gt_bboxes'], [[10, 20, 40, 60]])
    assert twice['flip'] is False


def test_flip_mirrors_pixels():
    results = make()
    before = results['img'].copy()
    np.testing.assert_array_equal(RandomFlip(prob=1.0)(results)['img'][:, 3], before[:, 96])


def test_flip_probability():
    assert sum(RandomFlip(prob=0.3)(make()).get('flip', False) for _ in range(400)) == pytest.approx(120, abs=35)
    assert not any(RandomFlip(prob=0.0)(make()).get('flip', False) for _ in range(50))


def test_no_box_stays_no_box():
    results = RandomFlip(prob=1.0)(ResizeShortestEdge(short_side=20)(make(boxes=())))
    assert results['gt_bboxes'].shape == (0, 4)


def test_the_seed_decides():
    def draw(seed):
        np.random.seed(seed)
        steps = (ResizeShortestEdge(short_side=tuple(range(20, 60))), RandomFlip(prob=0.5))
        made = [make() for _ in range(8)]
        return [(steps[1](steps[0](m))['img_shape'], m.get('flip')) for m in made]

    assert draw(5) == draw(5) != draw(6)


@pytest.mark.parametrize(
    'build',
    [
        lambda: ResizeShortestEdge(short_side=0),
        lambda: ResizeShortestEdge(short_side=()),
        lambda: ResizeShortestEdge(short_side=(1.5,)),
        lambda: ResizeShortestEdge(short_side=8, max_size=-1),
        lambda: ResizeShortestEdge(short_side=8, interpolation='linear'),
        lambda: ResizeShortestEdge(short_side=8, backend='opencv'),
        lambda: Resize(scale=5),
        lambda: Resize(scale=(5, 6, 7)),
        lambda: RandomFlip(prob=1.5),
    ],
)
def test_wrong_arguments(build):
    with pytest.raises(ConfigError, match='expected'):
        build()


def test_other_backends_have_bilinear_only():
    with pytest.raises(ConfigError, match="interpolation is 'nearest': backend cv2 has bilinear only"):
        ResizeShortestEdge(short_side=8, interpolation='nearest', backend='cv2')


def test_a_pillow_image_of_the_same_size_is_left_alone():
    results = make()
    image = results['img']
    assert Resize(scale=(60, 100))(results)['img'] is image
    assert Image.fromarray(image).size == (100, 60)


@pytest.mark.parametrize(
    'size', [(60, 100), (61, 100), (60, 101), (97, 333), (480, 800), (59, 101), (61, 99), (30, 50)]
)
def test_pixels_are_pillows(size):
    """Larger, smaller, and larger one way only."""
    image = make()['img']
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    for view in (image, np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]):
        results = Resize(scale=size)(dict(img=view))
        np.testing.assert_array_equal(results['img'], expected)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('size', [(60, 100), (90, 150), (30, 50)])
def test_read_only_images_are_resized_and_mirrored(size):
    image = make()['img']
    image.flags.writeable = False
    results = RandomFlip(prob=1.0)(Resize(scale=size)(dict(img=image)))
    mirrored = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR).transpose(Image.FLIP_LEFT_RIGHT)
    np.testing.assert_array_equal(results['img'], np.asarray(mirrored))


def test_opencv_is_imported_where_it_is_used():
    """The backend 'cv2' alone needs it."""
    assert not hasattr(geometry, 'cv2')
