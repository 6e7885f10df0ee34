"""Two iterations and two batches of validation of a toy."""

import json
from pathlib import Path

import pytest

from frdet.apis.ablation import trial
from frdet.errors import ConfigError
from tests.apis.ablation import toys


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toys.write_study(tmp_path, epochs=7, pause=0.05)
    return tmp_path / 'base.py'


def change(config, text):
    config.write_text(config.read_text() + text)


def test_what_is_measured(config):
    before = sorted(config.parent.iterdir())
    found = trial.measure(config)
    assert sorted(config.parent.iterdir()) == before
    assert (found['iterations'], found['validations'], found['val_images']) == (7 * 4, 7, 12)  # 12 images in threes
    assert found['metrics'] == ['coco/bbox_mAP']
    # Two 1 x 1 convolutions with biases, from 1 to 4 and to 1 channels, and the norm between them.
    assert found['params'] == found['trained'] == (4 + 4) + (4 + 1) + (4 + 4)
    assert found['seconds'] >= 0.05 and found['val_seconds'] >= 0.05 / 3  # of an image
    assert 100 < found['memory'] < 10_000
    parts = found['start'] + 28 * found['seconds'] + 7 * 12 * found['val_seconds']
    assert found['hours'] == pytest.approx(parts / 3600)


@pytest.mark.parametrize(
    ('text', 'count'),
    [
        ("train_cfg = dict(by_epoch=True, max_epochs=7, val_interval=3)\n", 3),  # 3, 6, 7
        ("train_cfg = dict(by_epoch=True, max_epochs=7, val_begin=4, val_interval=3)\n", 2),  # 6, 7
        (
            "train_cfg = dict(by_epoch=False, max_iters=10, val_interval=4)\n"
            "default_hooks['checkpoint']['by_epoch'] = False\nlog_processor = dict(by_epoch=False)\n",
            3,  # 4, 8, 10
        ),
    ],
)  # fmt: skip
def test_validations_of_the_whole_training(config, text, count):
    change(config, text)
    assert trial.measure(config)['validations'] == count


def test_a_training_of_one_iteration(config):
    change(config, "train_dataloader['batch_size'] = 12\ntrain_cfg = dict(by_epoch=True, max_epochs=1)\n")
    found = trial.measure(config)
    assert (found['iterations'], found['validations'], found['metrics']) == (1, 1, ['coco/bbox_mAP'])
    assert found['seconds'] >= 0.05


@pytest.mark.parametrize(
    ('known', 'words'),
    [([], 'A has no validation'), (['coco/bbox_mAP'], r"A: no metric 'coco/bbox_MAP' .*did you mean coco/bbox_mAP\?")],
)
def test_a_metric_that_is_not_given(known, words):
    with pytest.raises(ConfigError, match=words):
        trial.check_metric('coco/bbox_MAP', known, 'A')


def test_without_validation(config):
    change(config, 'val_dataloader = val_cfg = val_evaluator = None\n')
    found = trial.measure(config)
    assert (found['metrics'], found['validations'], found['input_size']) == ([], 0, None)


def test_in_a_process_of_its_own(config, tmp_path, monkeypatch):
    """The words of a training that fails are the message."""
    program = tmp_path / 'python'
    program.write_text('#!/bin/sh\necho one; echo two; echo "error: no such data" >&2; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(trial.sys, 'executable', str(program))
    with pytest.raises(ConfigError) as info:
        trial.try_config(config, tmp_path / 'trial.json', 'Variant a')
    first = 'Variant a cannot be trained (--no-trial plans without trying):'
    assert str(info.value).splitlines() == [first, 'one', 'two', 'error: no such data']
    program.write_text('#!/bin/sh\necho "$@" > "$4.words"; echo \'{"hours": 2}\' > "$4"\n')
    assert trial.try_config(config, tmp_path / 'trial.json', 'Variant a') == {'hours': 2}
    words = Path(tmp_path / 'trial.json.words').read_text().split()
    assert words == ['-m', 'frdet.apis.ablation.trial', str(config), str(tmp_path / 'trial.json')]
    assert json.loads((tmp_path / 'trial.json').read_text()) == {'hours': 2}
