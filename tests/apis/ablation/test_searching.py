"""Searches whose trainings are scripts of milliseconds: the result of each is a known function of its settings."""

import contextlib
import fcntl
import math
import multiprocessing
import os
import random
import signal
import statistics
import sys
import time
import warnings
from pathlib import Path

import optuna
import pytest

from frdet.apis.ablation import running, searching, trials
from frdet.config import check_config, load_config
from frdet.errors import ConfigError
from tests.apis.ablation.test_space import BASE, LR

MOMENTUM = 'optim_wrapper.optimizer.momentum'
SPACE = {LR: dict(low=1e-4, high=1.0, log=True), MOMENTUM: [0.0, 0.9]}
OPTIONS = "options = {'randomness.deterministic': True}\n"
EPOCHS = 6
#: As tools/train.py: it goes on after its last epoch, and ends with 75 after SIGTERM.
TRAIN = """
import json, math, os, signal, sys, time
from pathlib import Path
config, _, work_dir, _, seed, resume = sys.argv[1:]
assert resume == '--resume'
cfg, folder, here = {}, Path(work_dir), Path(__file__).parent
exec(Path(config).read_text(), cfg)
optimizer, epochs = {'momentum': 0.0, **cfg['optim_wrapper']['optimizer']}, cfg['train_cfg']['max_epochs']
with open(here / 'begun', 'a') as file:
    file.write(folder.parent.name + '\\n')
if (here / 'fail').exists():
    sys.exit('error: the data are missing')
folder.mkdir(exist_ok=True)
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
done = sum(1 for log in folder.glob('*/vis_data/scalars.json') for line in log.open() if 'bbox_mAP' in line)
log = folder / f'{time.time_ns()}/vis_data/scalars.json'
log.parent.mkdir(parents=True)
for epoch in range(done + 1, epochs + 1):
    time.sleep(PAUSE)
    if stopped:
        sys.exit(75)
    value = epoch / epochs - abs(math.log10(optimizer['lr']) + 2) / 4 + optimizer['momentum'] / 10
    with log.open('a') as file:
        for record in {'iter': 10 * epoch, 'loss': 1.0}, {'coco/bbox_mAP': value, 'step': epoch}:
            file.write(json.dumps(record) + '\\n')
(folder / 'finished.json').write_text('{}')
"""


def value(params, epoch=EPOCHS):
    """What the script gives."""
    return epoch / EPOCHS - abs(math.log10(params[LR]) + 2) / 4 + float(params[MOMENTUM]) / 10


def write(folder, *, pause=0.0, space=SPACE, more='trials = 4'):
    (folder / 'base.py').write_text(BASE)
    (folder / 'study.py').write_text(f"base = 'base.py'\nspace = {space}\n{more}\n")
    (folder / 'train.py').write_text(TRAIN.replace('PAUSE', str(pause)))


def search(folder, **kwargs):
    words = {'count': 1, **kwargs}
    return searching.search(folder / 'study.py', folder / 'work', folder / 'train.py', **words)


def stored(folder):
    """The trials as Optuna stores them."""
    return optuna.load_study(study_name='search', storage=f'sqlite:///{folder}/work/search.db').get_trials()


def begun(folder):
    """Names of the trials in the order in which their trainings were started."""
    return (folder / 'begun').read_text().split() if (folder / 'begun').exists() else []


def trainings(folder):
    """The processes that train now."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b'\0')
            found += [int(path.parent.name)] if str(folder / 'train.py').encode() in words else []
    return found


def try_config(config, out, name):
    out.write_text('{"metrics": ["coco/bbox_mAP"], "hours": 0.25}')
    return dict(metrics=['coco/bbox_mAP'], hours=0.25)


@pytest.fixture(autouse=True, scope='module')
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, 'POLL', 0.005)
        patch.setattr(searching, 'try_config', try_config)
        yield


@pytest.fixture(scope='module')
def searched(tmp_path_factory):
    """A search of twelve trials, and what it printed."""
    folder = tmp_path_factory.mktemp('searched')
    write(folder, pause=0.03, more=f'trials = 12\n{OPTIONS}')
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (searching, trials):
            patch.setattr(module, 'print', lambda *words, **_: lines.append(' '.join(words)), raising=False)
        assert search(folder) == folder / 'work/best.py'
    return folder, lines


def test_the_best_trial_is_a_config(searched):
    folder, _ = searched
    ended = {trial.number: trial for trial in stored(folder)}
    finished = [trial for trial in ended.values() if trial.state.name == 'COMPLETE']
    assert sorted(ended) == list(range(12))
    for trial in finished:
        assert trial.value == pytest.approx(value(trial.params))
    best = max(finished, key=lambda trial: trial.value)
    path = folder / 'work/best.py'
    cfg = load_config(path)
    check_config(cfg)
    expected = load_config(folder / 'base.py', {LR: best.params[LR], MOMENTUM: float(best.params[MOMENTUM])})
    assert cfg.to_dict() == expected.to_dict()
    assert path.read_text().splitlines() == [
        f'"""The best of 12 trials: coco/bbox_mAP {best.value:.4g} in trial {best.number}.',
        'All trials had randomness.deterministic=True.',
        '',
        f'python tools/train.py {path}',
        '"""',
        '',
        "_base_ = '../base.py'",
        '',
        'optim_wrapper = dict(optimizer=dict('
        + f'lr={best.params[LR]!r}'
        + ('' if best.params[MOMENTUM] == '0.9' else ', momentum=0.0')
        + '))',
    ]


def test_hopeless_trials_end_early(searched):
    folder, _ = searched
    ended = stored(folder)
    pruned = [trial for trial in ended if trial.state.name == 'PRUNED']
    assert pruned
    for trial in pruned:
        finished = [t for t in ended if t.state.name == 'COMPLETE' and t.datetime_complete < trial.datetime_complete]
        assert len(finished) >= 5 and trial.last_step < EPOCHS
        at = statistics.median(value(t.params, trial.last_step) for t in finished)
        assert value(trial.params, trial.last_step) < at
    rows = [line for log in (folder / 'work/trials').glob('*/seed_0/*/vis_data/scalars.json') for line in log.open()]
    assert sum('bbox_mAP' in row for row in rows) < 12 * EPOCHS


def test_what_is_printed(searched):
    folder, lines = searched
    ended = {trial.number: trial for trial in stored(folder)}
    assert lines[:2] == [
        'Training two iterations of the base',
        '0 of 12 trials are done; a whole one takes about 0.25 hours',
    ]
    assert len(lines) == 15  # one of each trial, and the summary
    for line in lines[2:-1]:
        number = int(line.removeprefix('trial ').partition(':')[0])
        trial = ended[number]
        head = f'trial {number}: lr={trial.params[LR]:.4g}, momentum={float(trial.params[MOMENTUM]):.4g}: '
        if trial.state.name == 'COMPLETE':
            assert line == f'{head}coco/bbox_mAP {trial.value:.4g}'
        else:
            assert line.startswith(f'{head}pruned after ') and ', coco/bbox_mAP ' in line
    counts = [sum(trial.state.name == name for trial in ended.values()) for name in ('COMPLETE', 'PRUNED')]
    head, *rows = lines[-1].splitlines()
    assert head == f'12 trials: {counts[0]} finished, {counts[1]} pruned, 0 failed. The best:'
    values = [float(row.split('|')[2]) for row in rows[3:8]]
    assert values == sorted(values, reverse=True) and len(set(values)) > 1
    assert lines[-1].endswith(f'python tools/ablate.py {folder}/base.py {folder}/work/best.py')


def test_a_search_that_is_done_trains_nothing(searched):
    folder, _ = searched
    before = begun(folder)
    assert search(folder) == folder / 'work/best.py'
    assert begun(folder) == before


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('seed = 0', 'seed = 1', 'seed: 0 -> 1'),
        (
            "'low': 0.0001",
            "'low': 0.001",
            f"space '{LR}': " + r'dict\(high=1.0, log=True, low=0.0001\) -> dict\(high=1.0, log=True, low=0.001\)',
        ),
        ('max_epochs=6', 'max_epochs=5', 'train_cfg.max_epochs: 6 -> 5'),
    ],
)
def test_another_search_in_the_folder(searched, tmp_path, old, new, message):
    folder, _ = searched
    for name, text in (('study', f"base = 'base.py'\nspace = {SPACE}\nseed = 0\n{OPTIONS}"), ('base', BASE)):
        (tmp_path / f'{name}.py').write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=f'holds another search:\n    {message}\nGive another --work-dir'):
        searching.search(tmp_path / 'study.py', folder / 'work', folder / 'train.py', count=1)


def test_killed_again_and_again(tmp_path):
    """Every trial has the values that it has in a search that nobody kills, and no epoch is trained twice."""
    for name, pause in (('killed', 0.1), ('whole', 0.0)):  # a kill comes before a training has ended
        (tmp_path / name).mkdir()
        write(tmp_path / name, pause=pause, more='trials = 5')  # so few are not pruned
    search(tmp_path / 'whole')
    drawn, folder = random.Random(0), tmp_path / 'killed'
    for _ in range(4):
        process = multiprocessing.get_context('fork').Process(target=search, args=(folder,))
        before = len(begun(folder))
        process.start()
        while process.is_alive() and len(begun(folder)) == before:
            time.sleep(0.005)
        time.sleep(drawn.uniform(0.0, 0.15))
        process.kill()
        process.join()
        for training in trainings(folder) if drawn.random() < 0.7 else ():  # else it goes on without the search
            os.kill(training, signal.SIGKILL)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        search(folder)
    whole, killed = stored(tmp_path / 'whole'), stored(folder)
    assert len(begun(folder)) > 5  # some trainings were killed, too
    assert [trial.params for trial in killed] == [trial.params for trial in whole]
    assert [trial.state.name for trial in killed] == ['COMPLETE'] * 5
    assert [trial.value for trial in killed] == [value(trial.params) for trial in killed]
    for work in (folder / 'work/trials').iterdir():
        rows = [line for log in sorted(work.glob('seed_0/*/vis_data/scalars.json')) for line in log.open()]
        steps = [row.partition('"step": ')[2] for row in rows if 'bbox_mAP' in row]
        assert steps == [f'{epoch}}}\n' for epoch in range(1, len(steps) + 1)]
    found, expected = (load_config(tmp_path / name / 'work/best.py').to_dict() for name in ('killed', 'whole'))
    assert found == expected


def test_equal_values_are_trained_once(tmp_path, capsys):
    write(tmp_path, space={MOMENTUM: [0.0, 0.9]}, more='trials = 6\nless_is_better = True')
    best = search(tmp_path, count=2)
    assert load_config(best).optim_wrapper.optimizer.momentum == 0.0
    assert len(stored(tmp_path)) == 6 and len(begun(tmp_path)) == 2
    lines = [line.partition(': ')[2] for line in capsys.readouterr().out.splitlines() if line.startswith('trial ')]
    assert set(lines) == {'momentum=0: coco/bbox_mAP 1', 'momentum=0.9: coco/bbox_mAP 1.09'} and len(lines) == 6


def test_failures_and_more_trials(tmp_path, capsys):
    write(tmp_path, more='trials = 1')
    (tmp_path / 'fail').touch()
    assert search(tmp_path) is None
    said = capsys.readouterr().out.splitlines()
    assert said[2].endswith(': failed with exit code 1')
    assert said[3].startswith('    the last lines of ') and said[4] == '    error: the data are missing'
    assert said[5] == '1 trial: 0 finished, 0 pruned, 1 failed. So there is no best.py'
    write(tmp_path, more='trials = 5')
    with pytest.raises(ConfigError, match='3 trainings failed one after the other, and none has succeeded'):
        search(tmp_path)
    (tmp_path / 'fail').unlink()
    assert search(tmp_path) == tmp_path / 'work/best.py'
    assert [trial.state.name for trial in stored(tmp_path)] == ['FAIL'] * 4 + ['COMPLETE']
    assert len(begun(tmp_path)) == len(set(begun(tmp_path))) == 5  # and no values twice


def test_values_that_exclude_each_other(tmp_path, capsys):
    """Each is right with the base, but AdamW has no momentum of Nesterov."""
    optimizer = 'optim_wrapper.optimizer'
    write(tmp_path, space={f'{optimizer}.type': ['SGD', 'AdamW'], f'{optimizer}.nesterov': [True]}, more='trials = 4')
    (tmp_path / 'base.py').write_text(BASE.replace(', momentum=0.9', ''))
    search(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if 'type=AdamW, nesterov=True: failed' in line]
    assert 0 < len(failed) < 4 and 'nesterov' in lines[lines.index(failed[0]) + 1]
    assert len(begun(tmp_path)) == 1


def test_another_process_searches(tmp_path):
    write(tmp_path)
    (tmp_path / 'work').mkdir()
    with open(tmp_path / 'work/search.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match='Another process searches in'):
            search(tmp_path)
    assert begun(tmp_path) == []


def test_the_metric_is_mended(tmp_path):
    """A mistake that is found before the first trial does not bind the folder."""
    write(tmp_path, more="trials = 1\nmetric = 'coco/bbox_map'")
    with pytest.raises(ConfigError, match="no metric 'coco/bbox_map' in its validation: did you mean coco/bbox_mAP"):
        search(tmp_path)
    write(tmp_path, more='trials = 1')
    assert search(tmp_path)


def test_a_folder_of_something_else(tmp_path):
    write(tmp_path)
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/study.json').touch()
    with pytest.raises(ConfigError, match='work holds files, and no search: give another --work-dir'):
        search(tmp_path)
    assert sorted(path.name for path in (tmp_path / 'work').iterdir()) == ['study.json']


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'optuna', None)
    with pytest.raises(ConfigError, match='pip install optuna'):
        search(tmp_path)
