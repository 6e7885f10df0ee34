"""What a training notes of its data sets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, RepeatDataset
from mmengine.structures import InstanceData
from PIL import Image

from frdet.datasets import ConcatDataset
from frdet.insight.store import SIZE_EDGES, gather_facts, label_statistics, save_batch
from frdet.structures import DetDataSample
from frdet.visualization import class_colour


class Records(BaseDataset):
    def __init__(self, folder):
        super().__init__(data_prefix=dict(img=folder), metainfo=dict(classes=('cat',)), serialize_data=False)

    def load_data_list(self):
        return [{'img_id': 4}, {'img_id': 5}]


@pytest.mark.parametrize(
    ('val', 'folder', 'ids'),
    [
        (Records('a'), 'a', [4, 5]),
        (RepeatDataset(Records('a'), 2), 'a', [4, 5, 4, 5]),
        (ConcatDataset([Records('a'), Records('a')]), 'a', [4, 5, 4, 5]),
        (ConcatDataset([Records('a'), Records('b')]), None, [4, 5, 4, 5]),
        (None, None, None),
    ],
)
def test_the_folder_of_the_validation_images(val, folder, ids):
    """Inside wrappers too; none where data sets of several folders are joined."""
    facts = gather_facts(Records('train'), val, ann_file='truth.json' if val else None, iters_per_epoch=1)
    assert facts.image_dir == (str(Path(folder).resolve()) if folder else None)
    assert facts.img_ids == ids and facts.classes == ['cat']


IMAGES = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2


@pytest.mark.parametrize(
    'batch', [dict(inputs=IMAGES), dict(inputs=IMAGES, data_samples=[DetDataSample()] * 2), [IMAGES[0], 1], dict()]
)
def test_a_batch_without_samples_is_not_drawn(tmp_path, batch):
    """A pipeline of one's own may pack no samples, or samples without ground truth."""
    save_batch(batch, tmp_path / 'batch.jpg', ('cat',))
    assert not (tmp_path / 'batch.jpg').exists()


def test_a_batch_with_samples_is_drawn(tmp_path):
    sample = DetDataSample(gt_instances=InstanceData(bboxes=torch.tensor([[1.0, 1, 6, 6]]), labels=torch.tensor([0])))
    save_batch(dict(inputs=IMAGES, data_samples=[sample] * 2), tmp_path / 'batch.jpg', ('cat',))
    assert (tmp_path / 'batch.jpg').exists()


def test_a_batch_with_masks(tmp_path):
    """800 pixels are drawn as every second: the masks in the same place, and only inside."""
    image = torch.full((3, 800, 800), 128, dtype=torch.uint8)
    masks = torch.zeros(1, 800, 800, dtype=torch.uint8)
    masks[:, 400:, :400] = 1
    truth = InstanceData(bboxes=torch.tensor([[0.0, 0, 800, 800]]), labels=torch.tensor([0]), masks=masks)
    save_batch(dict(inputs=[image], data_samples=[DetDataSample(gt_instances=truth)]), tmp_path / 'batch.png', ())
    (height, width, _), picture = (drawn := np.asarray(Image.open(tmp_path / 'batch.png'))).shape, drawn.astype(int)
    spots = [picture[round(y * height), round(x * width)] for y, x in ((0.75, 0.25), (0.75, 0.75), (0.25, 0.75))]
    fill = [0.6 * 128 + 0.4 * value for value in class_colour(0)]
    for found, expected in zip(spots, (fill, [128] * 3, [128] * 3), strict=True):
        np.testing.assert_allclose(found, expected, atol=2)


def test_label_statistics_by_hand():
    """Four images, of which one has no box; sides of 10, 32, 50 and 96 pixels."""
    sides = np.array([10, 10, 32, 50, 96])
    boxes = np.stack([np.zeros(5), np.zeros(5), sides, sides], axis=1)
    found = label_statistics(
        np.array([0, 0, 0, 1, 3]), np.array([2, 2, 0, 0, 0]), boxes, num_images=4, classes=('a', 'b', 'c')
    )
    sizes = found.pop('sizes')
    assert found == {
        'num_images': 4,
        'classes': ['a', 'b', 'c'],
        'objects': [3, 0, 2],
        'images': [3, 0, 1],
        'small': [0, 0, 2],  # below 32^2
        'medium': [2, 0, 0],
        'large': [1, 0, 0],  # from 96^2 on
        'per_image': [1, 2, 0, 1],
    }
    # Edges are 2, 2.8, 4, ..., 8, 11.3, ..., 32, 45.3, 64, 90.5, 128.
    where = {float(low): count for low, count in zip(SIZE_EDGES, sizes, strict=False) if count}
    assert list(where.values()) == [2, 1, 1, 1]
    assert np.allclose(list(where), [8, 32, 32 * 2**0.5, 64 * 2**0.5])


def test_label_statistics_of_no_boxes():
    none = np.zeros(0, int)
    found = label_statistics(none, none, np.zeros((0, 4)), num_images=2, classes=('a',))
    assert (found['objects'], found['images'], found['per_image'], sum(found['sizes'])) == ([0], [0], [2], 0)
