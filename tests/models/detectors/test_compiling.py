import copy
import functools

import pytest
import torch

from frdet.models.detectors import base
from frdet.registry import DETECTORS
from tests.models.torchvision_twin import frdet_config


@pytest.fixture(autouse=True)
def _afresh(monkeypatch):
    """No function compiled yet; graphs are captured and run without C++, which would take a minute."""
    monkeypatch.setattr(torch, 'compile', functools.partial(torch.compile, backend='aot_eager', fullgraph=True))
    base.compiled_features.cache_clear()
    torch._dynamo.reset()
    yield
    base.compiled_features.cache_clear()
    torch._dynamo.reset()


def build(**changes):
    torch.manual_seed(0)
    model = DETECTORS.build({**frdet_config(18), **changes})
    for norm in (m for m in model.modules() if type(m).__name__ == 'FrozenBatchNorm2d'):
        norm.weight.fill_(0.5)
    return model


def test_features_and_gradients_are_the_same():
    """As one graph: a part that torch cannot capture is an error. From the second size on sizes are dynamic."""
    plain, fast = build(), build(compile=True)
    assert base.compiled_features() is not base._features
    assert plain.state_dict().keys() == fast.state_dict().keys()
    for size in ((64, 96), (96, 64)):
        inputs = torch.randn(1, 3, *size)
        found, expected = ([f.double().sum() for f in m.train().extract_features(inputs)] for m in (fast, plain))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
        for model, total in ((fast, sum(found)), (plain, sum(expected))):
            model.zero_grad()
            total.backward()
        for (name, a), b in zip(fast.named_parameters(), plain.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            if a.grad is not None:
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3 * float(b.grad.abs().max()))


def test_a_copy_uses_its_own_weights():
    """An average of the weights is a copy of the model."""
    model = build(compile=True).eval()
    inputs = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model.extract_features(inputs)[0]
        other = copy.deepcopy(model)
        other.backbone.conv1.weight.zero_()
        assert not torch.equal(other.extract_features(inputs)[0], before)
        assert torch.equal(model.extract_features(inputs)[0], before)


def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    logged = []
    monkeypatch.setattr(base, 'print_log', lambda text, *args: logged.append(text))
    model = build(compile=True)
    for _ in range(2):
        model.extract_features(torch.zeros(1, 3, 64, 64))
    assert base.compiled_features() is base._features
    (text,) = logged
    assert 'no C++ compiler no-such-compiler' in text
