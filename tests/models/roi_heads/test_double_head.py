"""The box head of Double-Head R-CNN against torch's own layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.models.roi_heads import DoubleConvFCBBoxHead
from tests.models.roi_heads.test_standard_roi_head import SIZES, features, make_head, make_proposals, make_truth

ARGUMENTS = dict(num_classes=4, in_channels=5, roi_size=3, fc_channels=6, num_fcs=2, conv_channels=8, num_convs=2)


def head(**changes: object) -> DoubleConvFCBBoxHead:
    made = DoubleConvFCBBoxHead(**{**ARGUMENTS, 'norm': dict(type='FrozenBN'), **changes})
    for tensor in made.state_dict().values():
        nn.init.uniform_(tensor, 0.5, 1.5) if tensor.dim() == 1 else nn.init.normal_(tensor, std=0.5)
    return made


def convolved(state: dict[str, Tensor], conv: str, norm: str, x: Tensor) -> Tensor:
    weight = state[f'{conv}.weight']
    statistics = (state[f'{norm}.{kind}'] for kind in ('running_mean', 'running_var', 'weight', 'bias'))
    return F.batch_norm(F.conv2d(x, weight, padding=weight.shape[2] // 2), *statistics)


@pytest.mark.parametrize('class_agnostic', [True, False])
def test_values_by_torchs_layers(class_agnostic: bool) -> None:
    """Names as in MMDetection's checkpoints."""
    made = head(class_agnostic=class_agnostic)
    state, pooled, around = made.state_dict(), torch.randn(7, 5, 3, 3), torch.randn(7, 5, 3, 3)
    x = pooled.flatten(1)
    for i in range(2):
        x = F.linear(x, state[f'fc_branch.{i}.weight'], state[f'fc_branch.{i}.bias']).relu()
    y = convolved(state, 'res_block.conv1.conv', 'res_block.conv1.bn', around).relu()
    y = convolved(state, 'res_block.conv2.conv', 'res_block.conv2.bn', y)
    y = (y + convolved(state, 'res_block.conv_identity.conv', 'res_block.conv_identity.bn', around)).relu()
    for i in range(2):
        inner = convolved(state, f'conv_branch.{i}.conv1', f'conv_branch.{i}.bn1', y).relu()
        inner = convolved(state, f'conv_branch.{i}.conv2', f'conv_branch.{i}.bn2', inner).relu()
        y = (y + convolved(state, f'conv_branch.{i}.conv3', f'conv_branch.{i}.bn3', inner)).relu()
    y = F.adaptive_avg_pool2d(y, 1).flatten(1)
    scores, deltas = made(pooled, around)
    torch.testing.assert_close(scores, F.linear(x, state['fc_cls.weight'], state['fc_cls.bias']))
    expected = F.linear(y, state['fc_reg.weight'], state['fc_reg.bias'])
    torch.testing.assert_close(deltas, expected.view(7, 1 if class_agnostic else 4, 4), atol=1e-4, rtol=1e-4)


def test_it_works_in_a_roi_head() -> None:
    """Scores are of the RoIs, deltas of larger ones: a factor of 1 gives others."""
    truth = make_truth(3, 1)
    proposals, maps = make_proposals(truth), features()
    config = dict(ARGUMENTS, conv_channels=32, type='DoubleConvFCBBoxHead', norm=dict(type='GN', num_groups=1))
    made = make_head(bbox_head=config)
    losses = made.loss(maps, proposals, truth)
    gradients = torch.autograd.grad(losses['loss_cls'] + losses['loss_bbox'], list(made.parameters()))
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)
    wide, narrow = (
        made(maps, torch.tensor([[0.0, 10.0, 10.0, 40.0, 30.0]])) for made.bbox_head.reg_roi_scale_factor in (1.3, 1.0)
    )
    assert torch.equal(wide[0], narrow[0]) and not torch.allclose(wide[1], narrow[1])
    with torch.no_grad():
        assert (made.predict(maps, proposals, SIZES).labels >= 0).any()


@pytest.mark.parametrize('wrong', [dict(num_classes=None), dict(num_fcs=0), dict(conv_channels=6)])
def test_sizes_that_cannot_be(wrong: dict[str, int | None]) -> None:
    with pytest.raises(ConfigError, match='DoubleConvFCBBoxHead.*expected positive numbers'):
        head(**wrong)
