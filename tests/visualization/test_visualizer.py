import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmengine.visualization import LocalVisBackend
from PIL import Image

from frdet.registry import VISUALIZERS
from frdet.structures import DetDataSample
from frdet.visualization import class_colour
from frdet.visualization.visualizer import boxes_on

ORIGINAL = np.full((700, 1000, 3), 128, dtype=np.uint8)
TRUE, FOUND = [100.0, 200, 300, 600], [500.0, 100, 900, 500]


@pytest.fixture
def visualizer(tmp_path):
    cfg = dict(type='DetVisualizer', name='test', vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path))
    visualizer = VISUALIZERS.build(cfg)
    visualizer.dataset_meta = dict(classes=('cat', 'dog', 'bird'))
    return visualizer


def sample(flip=False):
    """Truth in an input of half the height and width, mirrored if ``flip``; one weak detection."""
    made = DetDataSample(metainfo=dict(ori_shape=(700, 1000), img_shape=(350, 500), scale_factor=(0.5, 0.5), flip=flip))
    box = [v / 2 for v in TRUE]
    box = [500 - box[2], box[1], 500 - box[0], box[3]] if flip else box
    made.gt_instances = InstanceData(bboxes=torch.tensor([box]), labels=torch.tensor([0]))
    made.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    boxes = torch.tensor([FOUND, [10.0, 10, 50, 50]])
    made.pred_instances = InstanceData(bboxes=boxes, scores=torch.tensor([0.9, 0.1]), labels=torch.tensor([1, 2]))
    return made


def frame_at(picture, box, label):
    """Whether the middle of each side of a box has its class's colour."""
    x1, y1, x2, y2 = (round(v) for v in box)
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    spots = [(y, x1 + 1), (y, x2 - 2), (y1 + 1, x), (y2 - 2, x)]
    return all(picture[spot].tolist() == list(class_colour(label)) for spot in spots)


@pytest.mark.parametrize('flip', [False, True])
def test_truth_left_and_detections_right(visualizer, tmp_path, flip):
    visualizer.add_datasample('both', ORIGINAL, sample(flip), out_file=tmp_path / 'new' / 'both.png')
    picture = np.asarray(Image.open(tmp_path / 'new' / 'both.png'))
    head = picture.shape[0] - 700
    left, right = picture[head:, :1000], picture[head:, -1000:]
    assert frame_at(left, TRUE, 0)
    assert frame_at(right, FOUND, 1)
    assert not frame_at(right, [10, 10, 50, 50], 2)  # its score is below the limit
    assert not frame_at(left, FOUND, 1)


def with_masks(made):
    """The right half of the true object, in the mirrored input its left half; the lower half of the found one."""
    x1, y1, x2, y2 = (round(v) for v in made.gt_instances.bboxes[0].tolist())
    made.gt_instances.masks = torch.zeros(1, 350, 500, dtype=torch.uint8)
    middle = (x1 + x2) // 2
    made.gt_instances.masks[0, y1:y2, slice(x1, middle) if made.flip else slice(middle, x2)] = 1
    made.pred_instances.masks = torch.zeros(2, 700, 1000, dtype=torch.bool)
    made.pred_instances.masks[0, 300:500, 500:900] = True
    return made


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('on_input', [False, True])
def test_masks_lie_in_their_boxes(visualizer, tmp_path, flip, on_input):
    """On the original image, and on the network's input, where all is mirrored if it is."""
    image = ORIGINAL[::2, ::2] if on_input else ORIGINAL
    visualizer.add_datasample('both', image, with_masks(sample(flip)), out_file=tmp_path / 'a.png')
    picture = np.asarray(Image.open(tmp_path / 'a.png'))
    head = picture.shape[0] - 700
    left, right = picture[head:, :1000], picture[head:, -1000:]
    if on_input and flip:
        left, right = left[:, ::-1], right[:, ::-1]
    filled = [[round(0.6 * 128 + 0.4 * value) for value in class_colour(label)] for label in (0, 1)]
    assert left[400, 250].tolist() == filled[0] and left[400, 150].tolist() == [128] * 3
    assert right[400, 700].tolist() == filled[1] and right[200, 700].tolist() == [128] * 3


def test_parts_can_be_left_out(visualizer, tmp_path):
    out = tmp_path / 'a.png'
    visualizer.add_datasample('truth', ORIGINAL, sample(), draw_pred=False, out_file=out)
    assert frame_at(np.asarray(Image.open(out)), TRUE, 0)
    visualizer.add_datasample('found', ORIGINAL, sample(), draw_gt=False, out_file=out, pred_score_thr=0.05)
    picture = np.asarray(Image.open(out))
    assert frame_at(picture, FOUND, 1)
    assert frame_at(picture, [10, 10, 50, 50], 2)
    visualizer.add_datasample('neither', ORIGINAL, None, out_file=out)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), ORIGINAL)


def test_on_the_networks_input(visualizer, tmp_path):
    """The input is 350x500, enlarged by 2: boxes lie where they lay in the original."""
    visualizer.add_datasample('input', ORIGINAL[::2, ::2], sample(), out_file=tmp_path / 'a.png')
    picture = np.asarray(Image.open(tmp_path / 'a.png'))
    head = picture.shape[0] - 700
    assert frame_at(picture[head:, :1000], TRUE, 0)
    assert frame_at(picture[head:, -1000:], FOUND, 1)


def test_crowds_are_dashed(visualizer, tmp_path):
    made = sample()
    made.ignored_instances = InstanceData(bboxes=torch.tensor([[250.0, 50, 450, 250]]), labels=torch.tensor([2]))
    visualizer.add_datasample('crowd', ORIGINAL, made, draw_pred=False, out_file=tmp_path / 'a.png')
    picture = np.asarray(Image.open(tmp_path / 'a.png'))
    side = (picture[498, 520:880] == class_colour(2)).all(axis=1)
    assert 0.3 < side.mean() < 0.7


def test_backends_receive_the_picture(visualizer, tmp_path):
    visualizer.add_datasample('step', ORIGINAL, sample(), step=7)
    assert [path.name for path in tmp_path.rglob('*.png')] == ['step_7.png']


def test_boxes_without_sizes_are_left_alone():
    boxes = torch.tensor([[1.0, 2, 3, 4]])
    assert boxes_on(ORIGINAL, DetDataSample(), boxes) is boxes


def test_no_object_is_not_drawn_as_a_figure(visualizer):
    """COCO's -1 stays in the log; a curve does not fall to it. A figure of another metric may be -1."""

    class Curves:
        def add_scalars(self, scalar_dict, step, file_path):
            self.got = scalar_dict

    class Log(LocalVisBackend):
        add_scalars = Curves.add_scalars

    curves, log = Curves(), Log('unused')
    visualizer._vis_backends = dict(curves=curves, log=log)
    figures = {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_s': -1.0, 'mine/gain': -1.0, 'loss': -1}
    visualizer.add_scalars(figures, step=3)
    assert curves.got == {'coco/bbox_mAP': 0.5, 'mine/gain': -1.0, 'loss': -1}
    assert log.got == figures


def test_boxes_of_a_mirrored_input_of_the_originals_size():
    meta = dict(ori_shape=(700, 1000), img_shape=(700, 1000), scale_factor=(1.0, 1.0), flip=True)
    boxes = torch.tensor([[600.0, 20, 900, 40]])  # 1000 - 900 and 1000 - 600
    assert boxes_on(ORIGINAL, DetDataSample(metainfo=meta), boxes).tolist() == [[100.0, 20, 400, 40]]


def test_mmengines_figure_is_made_when_it_is_drawn_on(visualizer):
    assert 'fig_save' not in vars(visualizer)
    visualizer.set_image(np.zeros((40, 60, 3), dtype=np.uint8))
    visualizer.draw_bboxes(np.array([[10, 10, 30, 30]]), edge_colors='r')
    drawn = visualizer.get_image()
    assert drawn.shape == (40, 60, 3) and drawn[10, 20, 0] > 100 and not drawn[20, 50].any()
    with pytest.raises(AttributeError, match="'DetVisualizer' object has no attribute 'never'"):
        _ = visualizer.never
