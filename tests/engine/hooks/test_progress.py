"""Bars on a terminal, plain lines in a file."""

import io
import re

import pytest

from frdet.engine import DetRunner
from frdet.engine.hooks import NonFiniteError
from tests.engine import toy
from tests.terminal import HIDE, SHOW, screen

# 12 images, 3 a batch: 4 iterations an epoch, 8 in all, and 4 in each validation.
CHANGES = {'train_cfg.max_epochs': 2, 'param_scheduler': []}


@pytest.fixture(autouse=True)
def _drawn_at_every_change(monkeypatch):
    monkeypatch.setattr('frdet.progress.REDRAW', 0)


def train(work_dir, *, without=None, **changes):
    cfg = toy.config(work_dir, **{**CHANGES, **changes})
    cfg.default_hooks.pop(without, None)
    DetRunner.from_cfg(cfg).train()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    with pytest.MonkeyPatch.context() as patch, screen() as shown:
        patch.setattr('frdet.progress.REDRAW', 0)
        train(folder)
    (log,) = folder.glob('*/*.log')
    return shown, log.read_text().splitlines()


def bars(shown, beginning):
    return [line for line in shown.lines if line.startswith(beginning) and '━' in line]


def test_training_shows_epoch_iteration_eta_and_losses(trained):
    shown, _ = trained
    assert re.fullmatch(r'Epoch 1/2, iteration ━+ 0/8 ETA -:--:--', bars(shown, 'Epoch')[0])
    for done in range(1, 9):
        bar = rf'Epoch {1 if done <= 4 else 2}/2, iteration [━╸╺]+ {done}/8 ETA 0:00:\d\d'
        assert any(re.fullmatch(bar, line) for line in bars(shown, 'Epoch')), done
    figures = [line for line in shown.lines if line.startswith('lr ')]
    pattern = r'lr 0\.\d+  \d+\.\d{3} s/iter  loss \d\.\d{4}  loss_cls \d\.\d{4}  loss_bbox \d\.\d{4}'
    assert figures and all(re.fullmatch(pattern, line) for line in figures)


def test_figures_are_those_of_the_log(trained):
    """A line of the log is printed after the bar has its figures, which are drawn again below it."""
    shown, _ = trained
    number = next(i for i, line in enumerate(shown.lines) if 'Epoch(train) [1][2/4]' in line)
    logged = dict(re.findall(r'(loss\w*): (\d\.\d{4})', shown.lines[number]))
    below = next(line for line in shown.lines[number:] if line.startswith('lr '))
    assert dict(re.findall(r'(loss\w*) (\d\.\d{4})', below)) == logged and len(logged) == 3


def test_the_log_is_whole_on_the_terminal_and_plain_in_the_file(trained):
    shown, log = trained
    written = [line.split(' - ', 2)[2].strip() for line in log if 'Epoch(' in line]
    assert len(written) == 18  # 8 of training, 8 of validation, the figures of two
    assert all(any(line.endswith(text) for line in shown.lines) for text in written)
    assert not any('━' in line or '\x1b' in line for line in log)


def test_validation_has_a_bar_below(trained):
    shown, _ = trained
    for done in range(5):
        assert any(f' {done}/4 ' in line for line in bars(shown, ('Validating', 'Evaluating')))
    first = bars(shown, 'Validating')[0]
    assert shown.lines[shown.lines.index(first) - 1].startswith('Epoch 1/2, iteration')
    assert bars(shown, 'Evaluating')


def test_the_terminal_is_left_as_it_was(trained):
    shown, _ = trained
    raw = shown.getvalue()
    assert raw.rindex(SHOW) > raw.rindex(HIDE)
    assert '\x1b[2K' in raw[raw.rindex('━') :]  # what was drawn last is erased


def test_by_iterations(tmp_path):
    changes = {'train_cfg': dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3, _delete_=True)}
    with screen() as shown:
        train(tmp_path, **{**changes, 'default_hooks.checkpoint.by_epoch': False, 'log_processor.by_epoch': False})
    assert any(re.fullmatch(r'Iteration [━╸╺]+ 2/3 ETA 0:00:0\d', line) for line in shown.lines)


def test_a_resumed_run_begins_where_it_stood(tmp_path):
    train(tmp_path)
    with screen() as shown:
        train(tmp_path, resume=True, **{'train_cfg.max_epochs': 3})
    seen = [re.search(r'(\d+)/12', line)[1] for line in bars(shown, 'Epoch 3/3, iteration')]
    assert list(dict.fromkeys(seen)) == ['0', '8', '9', '10', '11', '12']


def test_testing_has_a_bar(tmp_path):
    with screen() as shown:
        DetRunner.from_cfg(toy.config(tmp_path)).test()
    assert any(re.fullmatch(r'Testing [━╸╺]+ 1/4 ETA .+', line) for line in shown.lines)


@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_none_where_a_stream_is_no_terminal(tmp_path, stream):
    """As in ``train.py | tee log``, where lines of another process would fall among the bars."""
    with screen(**{stream: io.StringIO()}) as shown:
        train(tmp_path)
    assert '━' not in shown.getvalue()


def test_none_without_the_hook(tmp_path):
    with screen() as shown:
        train(tmp_path, without='progress')
    assert '━' not in shown.getvalue() and 'Epoch(train) [2][4/4]' in shown.getvalue()


def test_none_on_other_processes(tmp_path, monkeypatch):
    monkeypatch.setattr('frdet.engine.hooks.progress.is_main_process', lambda: False)
    with screen() as shown:
        train(tmp_path)
    assert '━' not in shown.getvalue()


def test_an_error_takes_the_bars_away(tmp_path):
    """``screen`` checks that the streams are as before."""
    with screen() as shown, pytest.raises(NonFiniteError):
        train(tmp_path, **{'model.bad_iteration': 2})
    assert '\x1b[2K' in shown.getvalue()[shown.getvalue().rindex('━') :]
