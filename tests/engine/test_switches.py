"""What docs/switches.md offers in a line each, beyond the hooks that have tests of their own."""

import importlib.util
import json
import time

import pytest
import torch
from mmengine.hooks import Hook
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from frdet.apis import train_detector
from frdet.errors import ConfigError
from frdet.registry import HOOKS
from tests.engine import toy

MOMENTUM = 0.25


@HOOKS.register_module()
class WeightsHook(Hook):
    """Notes a weight after every step, and the one that validation works with."""

    trained: list[torch.Tensor] = []
    validated: list[torch.Tensor] = []

    priority = 'VERY_LOW'

    def after_train_iter(self, runner, *args, **kwargs):
        self.trained.append(runner.model.layer[0].weight.detach().clone())

    def before_val_iter(self, runner, *args, **kwargs):
        self.validated.append(runner.model.layer[0].weight.detach().clone())


def with_average(work_dir, *, epochs, resume=False):
    WeightsHook.trained, WeightsHook.validated = [], []
    cfg = toy.config(work_dir, **{'train_cfg.max_epochs': epochs, 'param_scheduler': []})
    cfg.default_hooks.ema = dict(type='EMAHook', momentum=MOMENTUM)
    cfg.custom_hooks = [dict(type='WeightsHook')]
    train_detector(cfg, work_dir=str(work_dir), seed=0, resume=resume)
    return torch.load(work_dir / f'epoch_{epochs}.pth', weights_only=True)


def test_average_of_the_weights(tmp_path):
    """The first step's weights, then a quarter of the new and three of the old; that is validated and saved."""
    saved = with_average(tmp_path, epochs=2)
    average = WeightsHook.trained[0]
    for weight in WeightsHook.trained[1:]:
        average = (1 - MOMENTUM) * average + MOMENTUM * weight
    assert len(WeightsHook.trained) == 8
    assert torch.allclose(saved['state_dict']['layer.0.weight'], average, rtol=1e-5)
    assert torch.allclose(WeightsHook.validated[-1], average, rtol=1e-5)
    assert not torch.allclose(average, WeightsHook.trained[-1], rtol=1e-5)


def test_average_goes_on_after_resuming(tmp_path):
    whole = with_average(tmp_path / 'whole', epochs=3)
    with_average(tmp_path / 'cut', epochs=1)
    resumed = with_average(tmp_path / 'cut', epochs=3, resume=True)
    for key in ('state_dict', 'ema_state_dict'):
        assert whole[key].keys() == resumed[key].keys()
        assert all(torch.equal(value, resumed[key][name]) for name, value in whole[key].items())


def with_backend(work_dir, **backend):
    cfg = toy.config(work_dir, **{'train_cfg.max_epochs': 2})
    cfg.vis_backends = cfg.visualizer.vis_backends = [dict(type='LocalVisBackend'), backend]
    train_detector(cfg, work_dir=str(work_dir), seed=0)
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    return [r['loss'] for r in map(json.loads, log.read_text().splitlines()) if 'loss' in r]


def test_tensorboard(tmp_path):
    losses = with_backend(tmp_path, type='TensorboardVisBackend')
    (folder,) = tmp_path.glob('*/vis_data')
    events = EventAccumulator(str(folder)).Reload()
    assert [scalar.value for scalar in events.Scalars('loss')] == pytest.approx(losses)
    assert [scalar.value for scalar in events.Scalars('coco/bbox_mAP')] == pytest.approx([0.12, 0.12])


@pytest.mark.parametrize('code', [False, True])
def test_wandb_offline(tmp_path, monkeypatch, code):
    """Code below the current folder is copied only if it is asked for."""
    monkeypatch.setenv('WANDB_SILENT', 'true')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'of_a_virtual_environment.py').touch()
    asked = dict(log_code_name='code') if code else {}
    init = dict(project='frdet', mode='offline')
    losses = with_backend(tmp_path, type='WandbVisBackend', init_kwargs=init, **asked)
    importlib.import_module('wandb').finish()
    (file,) = tmp_path.glob('**/offline-run-*/*.wandb')
    deadline = time.monotonic() + 60  # a process of wandb writes, and nothing waits for it
    while not all(json.dumps(loss).encode() in without_headers(file.read_bytes()) for loss in losses):
        assert time.monotonic() < deadline  # records of protobuf; figures in them are JSON
        time.sleep(0.1)
    assert len(losses) == 8
    assert (b'of_a_virtual_environment.py' in file.read_bytes()) == code


def without_headers(log, block=32_768, header=7):
    """What LevelDB's log format holds: a record is cut where a block ends, and goes on behind another header."""
    content, at = b'', header  # of the file
    while at + header <= len(log):
        if (left := block - at % block) < header:
            at += left
            continue
        length = int.from_bytes(log[at + 4 : at + 6], 'little')
        content += log[at + header : at + header + length]
        at += header + length
    return content


def test_mlflow(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(tmp_path)  # MLflow puts files into ./mlruns
    uri = f'sqlite:///{tmp_path}/mlflow.db'
    losses = with_backend(tmp_path / 'run', type='MLflowVisBackend', exp_name='frdet', tracking_uri=uri)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name('frdet').experiment_id])
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, 'loss')] == pytest.approx(losses)


def test_a_package_that_is_missing(tmp_path):
    """DVCLive is none of those that the tests install."""
    assert importlib.util.find_spec('dvclive') is None
    with pytest.raises(ConfigError, match='DVCLiveVisBackend needs a package that is missing: pip install dvclive'):
        with_backend(tmp_path, type='DVCLiveVisBackend')
