import pytest
import torch
from torch import nn

from frdet.models.layers import Conv2d, conv


@pytest.fixture(autouse=True)
def avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv, 'SLOW_WEIGHTS', True)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    'options', [dict(padding=1), dict(stride=2, bias=False), dict(padding=2, dilation=2, groups=2)]
)
def test_values_and_gradients_of_a_convolution_are_torchs(options: dict, memory_format: torch.memory_format) -> None:
    plain = nn.Conv2d(4, 6, 3, **options).to(memory_format=memory_format)
    ours = Conv2d(4, 6, 3, **options).to(memory_format=memory_format)
    ours.load_state_dict(plain.state_dict())
    results = []
    for layer in (plain, ours):
        torch.manual_seed(1)
        x = torch.randn(2, 4, 7, 6).to(memory_format=memory_format).requires_grad_()
        out = layer(x)
        out.pow(3).sum().backward()
        results.append((out, x.grad, *(p.grad for p in layer.parameters())))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert results[1][0].is_contiguous(memory_format=memory_format)


def test_what_needs_no_gradient_has_none() -> None:
    """Frozen weights, or an input without a gradient."""
    ours = Conv2d(2, 3, 3)
    ours(torch.randn(1, 2, 5, 5)).sum().backward()
    assert ours.weight.grad is not None and ours.bias is not None and ours.bias.grad is not None
    ours = Conv2d(2, 3, 3)
    ours.bias.requires_grad_(False)
    ours(torch.randn(1, 2, 5, 5)).sum().backward()
    assert ours.bias.grad is None
