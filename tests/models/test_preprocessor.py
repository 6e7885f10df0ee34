import pickle

import pytest
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from frdet.errors import DataError
from frdet.models.preprocessor import DetPreprocessor
from frdet.structures import DetDataSample

MEAN, STD = (10.0, 20.0, 30.0), (1.0, 2.0, 5.0)


def image(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def preprocess(images: list[Tensor], **changes: object) -> Tensor:
    preprocessor = DetPreprocessor(**{'mean': MEAN, 'std': STD, **changes})
    return preprocessor({'inputs': images, 'data_samples': [DetDataSample() for _ in images]})['inputs']


def test_pixels_by_hand() -> None:
    pixel = torch.tensor([100, 60, 40], dtype=torch.uint8).view(3, 1, 1)  # blue, green, red
    # (100 - 10) / 1, (60 - 20) / 2, (40 - 30) / 5
    assert preprocess([pixel])[0, :, 0, 0].tolist() == [90.0, 20.0, 2.0]


def test_mean_and_std_are_in_the_networks_order() -> None:
    pixel = torch.tensor([100, 60, 40], dtype=torch.uint8).view(3, 1, 1)
    # Red first: (40 - 10) / 1, (60 - 20) / 2, (100 - 30) / 5
    assert preprocess([pixel], bgr_to_rgb=True)[0, :, 0, 0].tolist() == [30.0, 20.0, 14.0]


def test_padding_is_zero_after_normalising_at_right_and_bottom() -> None:
    images = [image(40, 20), image(10, 65)]
    batch = preprocess(images)
    assert batch.shape == (2, 3, 64, 96)  # 40 and 65 up to multiples of 32
    assert batch.dtype == torch.float32
    for i, (height, width) in enumerate([(40, 20), (10, 65)]):
        mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
        torch.testing.assert_close(batch[i, :, :height, :width], (images[i].float() - mean) / std)
        assert batch[i, :, height:].eq(0).all()
        assert batch[i, :, :, width:].eq(0).all()


@pytest.mark.parametrize(('divisor', 'size'), [(1, (33, 50)), (10, (40, 50)), (32, (64, 64)), (64, (64, 64))])
def test_divisor(divisor: int, size: tuple[int, int]) -> None:
    assert preprocess([image(33, 50)], pad_size_divisor=divisor).shape[2:] == size


def test_a_multiple_is_not_padded() -> None:
    assert preprocess([image(64, 96)]).shape == (1, 3, 64, 96)


def test_memory_format() -> None:
    assert preprocess([image(32, 32), image(32, 32)]).is_contiguous(memory_format=torch.channels_last)


def test_samples_learn_the_padded_size_and_keep_theirs() -> None:
    samples = [DetDataSample(metainfo={'img_shape': (40, 20)}), DetDataSample(metainfo={'img_shape': (10, 65)})]
    data = DetPreprocessor(mean=MEAN, std=STD)({'inputs': [image(40, 20), image(10, 65)], 'data_samples': samples})
    assert [s.batch_input_shape for s in data['data_samples']] == [(64, 96)] * 2
    assert [s.img_shape for s in data['data_samples']] == [(40, 20), (10, 65)]


def test_images_alone() -> None:
    data = DetPreprocessor(mean=MEAN, std=STD)({'inputs': [image(8, 8)]})
    assert data['inputs'].shape == (1, 3, 32, 32)


def test_inputs_are_left_alone() -> None:
    given = image(8, 8)
    before = given.clone()
    preprocess([given], bgr_to_rgb=True)
    assert torch.equal(given, before)


def test_state_dict_holds_nothing() -> None:
    """A checkpoint of another normalisation must not overrule the config."""
    assert DetPreprocessor(mean=MEAN, std=STD).state_dict() == {}


def test_it_can_be_pickled() -> None:
    made = DetPreprocessor(mean=MEAN, std=STD)
    again = pickle.loads(pickle.dumps(made))
    data = {'inputs': [image(8, 8)]}
    assert torch.equal(again(data)['inputs'], made(data)['inputs'])


def test_truth_is_looked_at_in_training_before_it_moves() -> None:
    """On the host, where a GPU need not be waited for; ``meta`` holds no values that could be looked at."""
    made = DetPreprocessor(mean=MEAN, std=STD)
    made.num_classes = 3
    sample = DetDataSample(metainfo={'img_id': 5})
    sample.gt_instances = InstanceData(bboxes=torch.zeros(1, 4), labels=torch.tensor([3]))
    data = {'inputs': [image(8, 8)], 'data_samples': [sample]}
    made(data)  # in testing nothing is trained
    with pytest.raises(DataError, match='Ground truth of image 5: found the label 3'):
        made.to('meta')(data, training=True)
