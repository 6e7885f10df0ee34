"""A small detector whose step has no chance in it, and one of two processes that train it.

    python -m tests.apis.halves RANK FOLDER

Images are of one size, so that a half batch is padded as the whole one. Convolutions are in float64: in float32 the two
orders of the same sums may exchange proposals of nearly equal scores.
"""

import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from frdet.apis.launch import resolve_launcher
from frdet.models.task_modules.targets import NEGATIVE, POSITIVE, AssignResult, BaseSampler
from frdet.registry import DETECTORS, SAMPLERS
from frdet.structures import DetDataSample
from tests.models.torchvision_twin import frdet_config

STEPS, IMAGES, SIDE, CHANNELS = 3, 4, 64, 64


@SAMPLERS.register_module(force=True)
class EvenSampler(BaseSampler):
    """Positives and negatives of an image at even distances in their order, so that every level has some."""

    def sample(self, assigned: AssignResult) -> tuple[Tensor, Tensor]:
        positive = _evenly((assigned.label == POSITIVE).nonzero()[:, 0], int(self.num * self.pos_fraction))
        return positive, _evenly((assigned.label == NEGATIVE).nonzero()[:, 0], self.num - len(positive))


def _evenly(index: Tensor, count: int) -> Tensor:
    return index[torch.linspace(0, len(index) - 1, min(count, len(index))).long()]


def build_model(roi_samples: int = 32) -> nn.Module:
    """R18-FPN with GroupNorm, of random weights, the same each time; ``roi_samples`` an image in the second stage."""
    config = frdet_config(18)
    config['backbone'].update(norm=dict(type='GN'), frozen_stages=1)
    config['neck'].update(out_channels=CHANNELS)
    config['rpn_head'].update(in_channels=CHANNELS, feat_channels=CHANNELS, normalizer='quota')
    config['rpn_head'].update(sampler=dict(type='EvenSampler', num=64, pos_fraction=0.5))
    config['roi_head'].update(sampler=dict(type='EvenSampler', num=roi_samples, pos_fraction=0.25))
    config['roi_head']['bbox_head'].update(in_channels=CHANNELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(config).double().train()
    model.data_preprocessor.register_forward_hook(lambda _, __, out: {**out, 'inputs': out['inputs'].double()})
    return model


def batch(images: list[int], *, boxes: bool = True) -> dict:
    """Drawn images, the same for each number."""
    inputs, samples = [], []
    for number in images:
        generator = torch.Generator().manual_seed(number)
        inputs.append(torch.randint(256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8))
        count = 1 + number % 3 if boxes else 0
        corners = torch.rand(count, 2, generator=generator) * SIDE / 2
        sides = 16 + torch.rand(count, 2, generator=generator) * (SIDE / 2 - 16)
        sample = DetDataSample(metainfo=dict(img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE)))
        labels = torch.randint(4, (count,), generator=generator)
        sample.gt_instances = InstanceData(bboxes=torch.cat([corners, corners + sides], dim=1), labels=labels)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def images_of(step: int) -> list[int]:
    return list(range(step * IMAGES, (step + 1) * IMAGES))


def optimiser(model: nn.Module, **kwargs: int) -> OptimWrapper:
    params = [p for p in model.parameters() if p.requires_grad]
    return OptimWrapper(torch.optim.SGD(params, lr=0.02, momentum=0.9, weight_decay=1e-4), **kwargs)


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    cfg = Config()
    resolve_launcher(cfg, 'pytorch')
    model = build_model()
    wrapped = MODEL_WRAPPERS.build(dict(cfg.model_wrapper_cfg, module=model))
    optim = optimiser(model)
    for step in range(STEPS):
        wrapped.train_step(batch(images_of(step)[rank::2]), optim)
    torch.save(parameters(model), folder / f'{rank}.pth')
    # The second process, then both see no box.
    for empty in ((1,), (0, 1)):
        wrapped.train_step(batch(images_of(STEPS), boxes=rank not in empty), optim)
    torch.save(parameters(model), folder / f'{rank}_empty.pth')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
