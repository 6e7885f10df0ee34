import pytest
import torch
from mmengine.structures import InstanceData

from frdet.structures import to_network, to_original

#: From (50, 100), the network's, to (100, 50): x halves, y doubles. Mirrored, x is 100 - x before.
NETWORK = [[10.0, 10.0, 90.0, 40.0], [4.0, 0.0, 6.0, 50.0]]
ORIGINAL = {
    False: [[5.0, 20.0, 45.0, 80.0], [2.0, 0.0, 3.0, 100.0]],
    True: [[5.0, 20.0, 45.0, 80.0], [47.0, 0, 48, 100]],
}


@pytest.mark.parametrize('flip', [False, True])
def test_there_and_back_by_hand(flip: bool) -> None:
    found = InstanceData(bboxes=torch.tensor(NETWORK), labels=torch.tensor([1, 2]))
    there = to_original(found, (50, 100), (100, 50), flip=flip)
    assert there.bboxes.tolist() == ORIGINAL[flip]
    back = to_network(there, (50, 100), (100, 50), flip=flip)
    assert back.bboxes.tolist() == NETWORK
    assert back.labels.tolist() == [1, 2]


def test_what_was_given_stays_as_it_is() -> None:
    found = InstanceData(bboxes=torch.tensor(NETWORK), metainfo={'img_id': 3})
    for way in (to_original, to_network):
        assert way(found, (50, 100), (100, 50), flip=True).img_id == 3
        assert found.bboxes.tolist() == NETWORK


def test_boxes_beyond_the_original_are_cut_on_the_way_there_alone() -> None:
    """(-20, 60) is cut to (0, 60); what has no width then is dropped. The way to the network keeps both."""
    found = InstanceData(bboxes=torch.tensor([[-20.0, 0.0, 60.0, 10.0], [-8.0, 0.0, -2.0, 10.0]]))
    assert to_original(found, (50, 100), (50, 100)).bboxes.tolist() == [[0, 0, 60, 10]]
    assert to_network(found, (100, 200), (50, 100)).bboxes.tolist() == [[-40, 0, 120, 20], [-16, 0, -4, 20]]
