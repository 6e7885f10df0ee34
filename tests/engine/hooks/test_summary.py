"""What the terminal shows before the first loss, and what only the log file holds."""

import logging
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.optim import ConstantLR, CosineAnnealingLR, LinearLR, MultiStepLR
from torch import nn
from torch.optim import SGD

from frdet.apis import test_detector as evaluate_detector
from frdet.apis import train_detector
from frdet.checkpoints.hooks import CheckpointHook
from frdet.datasets import Annotations, DetDataset
from frdet.engine import DetRunner
from frdet.engine.hooks.summary import ScreenFilter, _course, _data, _model, _schedule
from frdet.registry import DATASETS
from tests.engine import toy


def shown(text):
    """The rows of the summary."""
    return dict(re.findall(r'^(\w[\w ]{,14}?) {2,}(\S.*)$', text, re.M))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A training of two epochs: its work dir, what the terminal showed, and the log file."""
    folder = tmp_path_factory.mktemp('work')
    with pytest.MonkeyPatch.context() as patch:
        screen = Screen()
        patch.setattr('sys.stdout', screen)
        train_detector(toy.config(folder, **{'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.interval': 1}))
    (log,) = folder.glob('*/*.log')
    return folder, ''.join(screen.lines), log.read_text()


class Screen:
    """A terminal's stdout without bars."""

    def __init__(self):
        self.lines = []

    def write(self, text):
        self.lines.append(text)

    def flush(self):
        pass

    def isatty(self):
        return False


def test_the_start_fits_on_one_screen(trained):
    _, screen, _ = trained
    before, first, _ = screen.partition('Epoch(train)')
    assert first
    assert len(before.splitlines()) <= 25
    assert 'Hooks will be executed' not in screen and 'System environment' not in screen
    assert 'FileClient' not in screen


def test_the_file_has_all_of_it(trained):
    _, screen, log = trained
    for line in ('System environment:', 'Config:', "type='ToyDetector'", 'Hooks will be executed', 'FileClient'):
        assert line in log
    assert 'learning rate' in log
    assert re.search(r'Epoch\(train\) +\[2\]\[4/4\]', screen) and re.search(r'Epoch\(train\) +\[2\]\[4/4\]', log)


def test_the_rows_of_a_training(trained):
    """12 images of toys in batches of 3; the rate of schedule_1x is 0.02 for 16 images."""
    folder, screen, _ = trained
    rows = shown(screen)
    assert rows['versions'].startswith('frdet ') and f'torch {torch.__version__}' in rows['versions']
    assert rows['device'].startswith(torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU, ')
    assert rows['work dir'].startswith(f'{folder} (the whole log: ')
    assert rows['train'] == rows['validation'] == '12 images'
    assert rows['classes'] == '2: cat, dog'
    assert rows['model'] == 'ToyDetector, 21 parameters'  # 4 + 4 of a convolution, 4 + 4 of a norm, 4 + 1
    assert rows['weights'] == 'random'
    assert rows['schedule'] == (
        '2 epochs x 4 iterations = 8 iterations; validation every 1 epoch; checkpoint every 1 epoch'
    )
    assert rows['optimiser'] == 'SGD, float32'
    assert rows['learning rate'].endswith('0.02 x 3 / 16 = 0.00375')
    assert rows['rate over time'] == 'warm-up from 0.001 of it over 1,000 iterations; x 0.1 after epoch 8, 11'
    assert rows['seed'] == '0'


def test_the_rows_of_a_test(trained, tmp_path, capsys):
    checkpoint = trained[0] / 'epoch_2.pth'
    evaluate_detector(toy.config(tmp_path), str(checkpoint))
    screen = capsys.readouterr().out
    assert screen.lstrip('\n').partition('\n')[0].endswith('INFO - ')  # MMEngine says nothing before the summary
    rows = shown(screen)
    assert rows['test'] == '12 images'
    assert re.fullmatch(rf'{checkpoint} \(.*\), \d+ tensors', rows['weights'])
    assert 'seed' not in rows and 'schedule' not in rows


def test_the_rows_of_a_validation(tmp_path, capsys):
    DetRunner.from_cfg(toy.config(tmp_path, **{'default_hooks.checkpoint': None})).val()
    rows = shown(capsys.readouterr().out)
    assert rows['validation'] == '12 images' and rows['weights'] == 'random'
    assert 'seed' not in rows and 'schedule' not in rows and 'train' not in rows


def test_frozen_parts_and_weights_of_parts():
    """4 + 2 parameters of the first layer, 2 + 1 of the second one."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False).loaded_from = 'a.pth, layout torchvision'
    assert dict(_model(SimpleNamespace(model=model, hooks=[]))) == {
        'model': 'Sequential, 9 parameters, 6 of them frozen',
        'weights': '0 from a.pth, layout torchvision; the other ones are random',
    }


def test_the_rows_of_a_training_by_iterations():
    """Iterations and epochs are told apart; the rate and precision are the optimiser's."""
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(val_interval=50),
        max_iters=1000,
        val_loop=object(),
        hooks=[CheckpointHook(interval=2, by_epoch=True)],
        optim_wrapper=SimpleNamespace(optimizer=SGD([nn.Parameter(torch.zeros(1))], lr=0.1), dtype=torch.bfloat16),
        param_schedulers=None,
    )
    assert dict(_schedule(runner)) == {
        'schedule': '1,000 iterations; validation every 50 iterations; checkpoint every 2 epochs',
        'optimiser': 'SGD, bfloat16',
        'learning rate': '0.1, not scaled to the images in a step',
    }
    runner.optim_wrapper = object()  # several optimisers are left to MMEngine
    assert [name for name, _ in _schedule(runner)] == ['schedule']


@pytest.mark.parametrize(
    ('one', 'words'),
    [
        (partial(MultiStepLR, milestones=[2, 4], gamma=0.5, begin=3), 'x 0.5 after epoch 5, 7'),
        (partial(CosineAnnealingLR, T_max=8, begin=4, end=12), 'CosineAnnealingLR from epoch 4 to 12'),
        (partial(ConstantLR, factor=0.5, begin=4), 'ConstantLR from epoch 4'),
        (partial(LinearLR, start_factor=0.1, end=500, by_epoch=False), 'warm-up from 0.1 of it over 499 iterations'),
    ],
)
def test_the_course_of_a_rate(one, words):
    assert _course(one(SGD([nn.Parameter(torch.zeros(1))], lr=0.1))) == words


def test_where_a_resumed_run_goes_on(trained, tmp_path, capsys):
    cfg = toy.config(tmp_path, **{'train_cfg.max_epochs': 3, 'randomness.deterministic': True})
    train_detector(cfg, resume=str(trained[0] / 'epoch_1.pth'), validate=False)
    torch.use_deterministic_algorithms(False)
    rows = shown(capsys.readouterr().out)
    assert rows['weights'].endswith('; goes on after iteration 4 of 12')
    assert rows['seed'] == '0, deterministic algorithms only'
    assert 'validation' not in rows


def test_debug_shows_everything(tmp_path, capsys):
    train_detector(toy.config(tmp_path, **{'train_cfg.max_epochs': 1, 'log_level': 'DEBUG'}), validate=False)
    screen = capsys.readouterr().out
    assert 'System environment:' in screen and 'Hooks will be executed' in screen and 'learning rate' in screen


@DATASETS.register_module(force=True)
class ThreeImages(DetDataset):
    """Two boxes and a crowd in the first image, nothing in the second one, a crowd in the third one."""

    def read(self):
        return Annotations(
            images=[dict(file_name=f'{k}.jpg', height=9, width=9) for k in range(3)],
            categories=[f'class {k}' for k in range(10)],
            image_index=[0, 0, 0, 2],
            category_index=[1, 2, 1, 1],
            xywh=np.full((4, 4), 2.0),
            crowd=[0, 0, 1, 1],
        )


def rows_of(tmp_path, wrapper=None, **changes):
    given = dict(type='ThreeImages', ann_file=str(tmp_path), data_prefix=dict(img=str(tmp_path)), **changes)
    return dict(_data([('train', DATASETS.build({**wrapper, 'dataset': given} if wrapper else given))]))


def test_boxes_and_empty_images_are_counted(tmp_path):
    rows = rows_of(tmp_path)
    assert rows['train'] == '3 images, 2 boxes, 2 images without objects'
    assert rows['classes'] == f'10: {", ".join(f"class {k}" for k in range(8))} and 2 more'


def test_images_left_out_are_counted(tmp_path):
    assert rows_of(tmp_path, filter_cfg=dict(filter_empty_gt=True))['train'] == (
        '1 image, 2 boxes, 0 images without objects; '
        'left out: 1 have no box of the chosen classes, 1 have only crowd or ignored boxes'
    )


def test_a_wrapper_counts_its_epoch(tmp_path):
    rows = rows_of(tmp_path, dict(type='RepeatDataset', times=4))
    assert rows['train'].startswith('12 images an epoch, of 3 different ones, 2 boxes')


def test_images_without_known_boxes(tmp_path):
    """Of joined data sets of which only one tells its boxes, these boxes are counted."""
    told = DATASETS.build(dict(type='ThreeImages', ann_file=str(tmp_path), data_prefix=dict(img=str(tmp_path))))
    rows = dict(_data([('train', torch.utils.data.ConcatDataset([told, toy.ToyDataset()]))]))
    assert rows == {'train': '15 images, 2 boxes, 2 images without objects'}


def test_warnings_are_always_shown():
    screen = ScreenFilter()
    records = [logging.LogRecord('x', level, '', 0, text, (), None) for level, text in LINES]
    assert [text for record, (_, text) in zip(records, LINES, strict=True) if screen.filter(record)] == ['w']
    screen.started = True
    assert [screen.filter(record) for record in records] == [True, True, False]


LINES = [(logging.INFO, 'i'), (logging.WARNING, 'w'), (logging.WARNING, '"FileClient" will be deprecated in future')]
