"""What a training notes of its data sets."""

from pathlib import Path

import pytest
from mmengine.dataset import BaseDataset, RepeatDataset

from frdet.datasets import ConcatDataset
from frdet.insight.store import gather_facts


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
