"""A checkpoint that does not fit is refused where MMEngine would go on with random weights."""

import pytest
import torch

from frdet.engine.hooks import FitCheckpointHook
from frdet.errors import CheckpointError
from tests.engine import toy


def run_with(tmp_path, content, **kwargs):
    path = str(tmp_path / 'a.pth')
    torch.save(content, path)
    run = toy.runner(tmp_path / 'work', load_from=path, resume=kwargs.get('resume', False))
    run.register_hook(FitCheckpointHook(source=path, **kwargs))
    return run


def test_a_fitting_checkpoint_passes(tmp_path):
    assert run_with(tmp_path, {'state_dict': toy.ToyDetector().state_dict()}).test() == {'coco/bbox_mAP': 0.12}


def test_missing_and_misshapen(tmp_path):
    state = toy.ToyDetector().state_dict()
    del state['layer.0.bias']
    state['layer.2.bias'] = torch.ones(7)
    with pytest.raises(CheckpointError, match=r'lacks layer\.0\.bias; it has another shape of layer\.2\.bias'):
        run_with(tmp_path, {'state_dict': state}).test()


def test_weights_alone_cannot_be_resumed(tmp_path):
    run = run_with(tmp_path, {'state_dict': toy.ToyDetector().state_dict(), 'meta': {}}, resume=True)
    with pytest.raises(CheckpointError, match='has no message_hub, optimizer to resume from'):
        run.train()
