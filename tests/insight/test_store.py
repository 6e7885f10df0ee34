"""What a training notes of its data sets."""

from pathlib import Path

import pytest
import torch
from mmengine.dataset import BaseDataset, RepeatDataset
from mmengine.structures import InstanceData

from frdet.datasets import ConcatDataset
from frdet.insight.store import gather_facts, save_batch
from frdet.structures import DetDataSample


class Records(BaseDataset):
    def __init__(self, folder):
        super().__init__(data_prefix=dict(img=folder), metainfo=dict(classes=('cat',)))

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
