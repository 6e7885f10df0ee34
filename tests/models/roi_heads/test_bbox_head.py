import pytest
import torch
from torch import nn

from frdet.models.roi_heads import FCBBoxHead


def head(**changes: int | bool) -> FCBBoxHead:
    return FCBBoxHead(**{'num_classes': 3, 'in_channels': 4, 'roi_size': 2, 'fc_channels': 8, 'num_fcs': 2, **changes})


def test_values_by_plain_matrix_products() -> None:
    made = head()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    pooled = torch.randn(5, 4, 2, 2)
    state = made.state_dict()
    x = pooled.reshape(5, 16)
    for i in (0, 1):
        x = (x @ state[f'shared_fcs.{i}.weight'].T + state[f'shared_fcs.{i}.bias']).clamp(min=0)
    scores, deltas = made(pooled)
    torch.testing.assert_close(scores, x @ state['fc_cls.weight'].T + state['fc_cls.bias'])
    # Four deltas of the first class, then four of the second, ...
    for k in range(3):
        rows = slice(4 * k, 4 * k + 4)
        torch.testing.assert_close(deltas[:, k], x @ state['fc_reg.weight'][rows].T + state['fc_reg.bias'][rows])


@pytest.mark.parametrize('rois', [0, 3])
def test_shapes(rois: int) -> None:
    """Also where not one RoI is left."""
    pooled = torch.randn(rois, 4, 2, 2)
    assert [tuple(x.shape) for x in head()(pooled)] == [(rois, 4), (rois, 3, 4)]
    assert [tuple(x.shape) for x in head(class_agnostic=True)(pooled)] == [(rois, 4), (rois, 1, 4)]


@pytest.mark.parametrize('num_fcs', [0, 1, 3])
def test_number_of_shared_layers(num_fcs: int) -> None:
    made = head(num_fcs=num_fcs)
    assert len(made.shared_fcs) == num_fcs
    assert made.fc_cls.in_features == (8 if num_fcs else 16)
    assert made(torch.randn(2, 4, 2, 2))[0].shape == (2, 4)


def test_initial_weights() -> None:
    made = head(num_classes=80, fc_channels=256)
    assert made.fc_cls.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert made.fc_reg.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert made.shared_fcs[1].weight.std().item() == pytest.approx(1 / 16, rel=0.05)  # sqrt(1 / fan-in)
    assert all(p.eq(0).all() for name, p in made.named_parameters() if name.endswith('bias'))
