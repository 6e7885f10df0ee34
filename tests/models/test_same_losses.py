"""Ways to compute a training step that are faster leave its numbers as they are."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from frdet.models.dense_heads import RPNHead
from frdet.registry import DETECTORS
from tests.conftest import CocoRoot
from tests.models.torchvision_twin import (
    EVERYTHING,
    for_torchvision,
    frdet_config,
    load_images,
    to_frdet,
    torchvision_model,
)

STEPS = 5


class PlainRPNHead(RPNHead):
    """A forward pass of its own keeps the losses on every cell."""

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return super().forward(features)


def train(
    model: torch.nn.Module, images: list[Tensor], samples: list, *, steps: int = STEPS, amp: bool = False
) -> list[list[float]]:
    """The losses of some steps at the learning rates a run begins with."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0, momentum=0.9)
    torch.manual_seed(1)
    history = []
    for i in range(steps):
        optimizer.param_groups[0]['lr'] = 0.0025 * (0.001 * (1 - i / 1000) + i / 1000)
        data = model.data_preprocessor({'inputs': images, 'data_samples': copy.deepcopy(samples)})
        with torch.autocast('cpu', torch.bfloat16, enabled=amp):
            losses = model(**data, mode='loss')
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if name.startswith('loss')).backward()
        optimizer.step()
        history.append([value.item() for name, value in sorted(losses.items()) if name.startswith('loss')])
    return history


def detector(coco_root: CocoRoot) -> tuple[list[Tensor], list, torch.nn.Module]:
    """Two images, their truth, and a network calibrated on them.

    RPN samples do not depend on the network; all RoIs are sampled, so that a rounding that swaps two proposals does
    not draw others. Noise, so that no two cells of a drawn image are alike and tie.
    """
    images, samples = load_images(coco_root.val_dir, coco_root.root / coco_root.val_ann, count=2)
    images = [(image.int() + torch.randint(-30, 30, image.shape)).clamp(0, 255).byte() for image in images]
    config = frdet_config(18)
    config['rpn_head']['sampler']['num'] = 64
    config['roi_head']['sampler']['num'] = EVERYTHING
    model = DETECTORS.build(config).train()
    model.load_state_dict(to_frdet(torchvision_model(18, for_torchvision(images, samples)[0]).state_dict()))
    return images, samples, model


def test_steps_are_those_of_the_plain_computation(coco_root: CocoRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folded norms and losses at sampled anchors, against a pass for each norm and losses over every cell."""
    images, samples, model = detector(coco_root)
    plain = copy.deepcopy(model)
    plain.rpn_head.__class__ = PlainRPNHead
    found = train(model, images, samples)
    monkeypatch.setattr('frdet.models.backbones.resnet.conv_norm', lambda x, conv, norm: norm(conv(x)))
    expected = train(plain, images, samples)
    assert found[0] != found[-1]
    for a, b in zip(found, expected, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason='this CPU emulates bfloat16, which takes minutes'
)
def test_bfloat16_keeps_the_losses_of_twenty_steps(coco_root: CocoRoot) -> None:
    """The sum of all losses over all steps; step by step the runs part, as any two do that round differently."""
    images, samples, model = detector(coco_root)
    exact = torch.tensor(train(copy.deepcopy(model), images, samples, steps=20))
    rough = torch.tensor(train(model, images, samples, steps=20, amp=True))
    assert not torch.equal(exact[0], rough[0])
    assert (exact[-1].sum() / exact[0].sum()).item() < 0.9  # they train
    assert rough.sum().item() == pytest.approx(exact.sum().item(), rel=0.02)
    assert torch.allclose(rough.sum(dim=0), exact.sum(dim=0), rtol=0.05, atol=0)
