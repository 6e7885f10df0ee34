"""A run that is told to stop saves where it is, and goes on from there."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch.optim import SGD

from frdet.apis import train_detector
from frdet.engine.hooks.stop import SAME, SIGNALS, StopHook, _init_worker
from frdet.errors import Interrupted
from frdet.registry import HOOKS
from tests import warm
from tests.apis.test_launch import write_config
from tests.engine import toy
from tests.signals import heed_ctrl_c

TWO = {'train_cfg.max_epochs': 2}  # of 4 iterations


@pytest.fixture(autouse=True)
def _signals():
    """A run that was stopped leaves them ignored, so that nothing ends the process before it has left."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in a shell's background
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@HOOKS.register_module(force=True)
class SignalHook(Hook):
    """Sends this process a signal in the given iteration, counted from 0, of training or of the validation after it; in
    the stage 'set-up', before the first one.
    """

    priority = 'LOWEST'

    def __init__(self, *, number, iteration, stage='train'):
        self.number = number
        self.iteration = iteration
        self.stage = stage

    def before_train(self, runner):
        if self.stage == 'set-up':
            os.kill(os.getpid(), self.number)

    def _before_iter(self, runner, batch_idx, data_batch=None, mode='train'):
        if mode == self.stage and runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


@HOOKS.register_module(force=True)
class SleepHook(Hook):
    """The second iteration takes long."""

    def __init__(self, *, seconds):
        self.seconds = seconds

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 1:
            print('hangs', flush=True)
            time.sleep(self.seconds)


def stopped(tmp_path, iteration, stage='train', number=signal.SIGTERM, says=None, **changes):
    hook = dict(type='SignalHook', number=int(number), iteration=iteration, stage=stage)
    kind = Interrupted if number == signal.SIGINT else SystemExit
    with pytest.raises(kind, match=says) as info:
        train_detector(toy.config(tmp_path, custom_hooks=[hook], **{**TWO, **changes}))
    if number == signal.SIGTERM:
        assert info.value.code == 75
    elif number == signal.SIGINT and (tmp_path / 'last_checkpoint').is_file():
        assert info.value.checkpoint == (tmp_path / 'last_checkpoint').read_text()


def pointed(tmp_path):
    return torch.load((tmp_path / 'last_checkpoint').read_text(), weights_only=True)


def checkpoints(folder):
    return {path.name for path in folder.glob('*.pth')}


def validations(folder):
    lines = [line for path in folder.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()]
    return sum('coco/bbox_mAP' in json.loads(line) for line in lines)


@pytest.mark.parametrize(
    ('number', 'iteration'),
    [(signal.SIGTERM, 0), (signal.SIGTERM, 4), (signal.SIGUSR1, 5), (signal.SIGINT, 0), (signal.SIGINT, 5)],
)
def test_stops_after_the_iteration_and_goes_on(tmp_path, number, iteration):
    stopped(tmp_path / 'stopped', iteration, number=number)
    assert pointed(tmp_path / 'stopped')['meta']['iter'] == iteration + 1
    model = train_detector(toy.config(tmp_path / 'stopped', **TWO), resume=True)
    assert model.calls == 8 - (iteration + 1)
    whole = train_detector(toy.config(tmp_path / 'whole', **TWO)).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())
    assert {'epoch_1.pth', 'epoch_2.pth'} <= checkpoints(tmp_path / 'stopped')
    assert not list((tmp_path / 'stopped').glob('iter_*.pth'))  # replaced by the next


def test_iterations_are_not_epochs(tmp_path):
    """Where checkpoints are counted in iterations, that of a stop counts among them."""
    counted = {'default_hooks.checkpoint.by_epoch': False, 'default_hooks.checkpoint.interval': 2}
    stopped(tmp_path, 4, **counted)
    assert {'iter_2.pth', 'iter_4.pth', 'iter_5.pth'} <= checkpoints(tmp_path)
    train_detector(toy.config(tmp_path, **TWO, **counted), resume=True)
    assert {'iter_5.pth', 'iter_6.pth', 'iter_8.pth'} == {n for n in checkpoints(tmp_path) if n.startswith('iter')}


def test_summed_gradients_are_used_first(tmp_path):
    summed = {'optim_wrapper.accumulative_counts': 2}
    stopped(tmp_path / 'stopped', 2, **summed)
    assert pointed(tmp_path / 'stopped')['meta']['iter'] == 4
    model = train_detector(toy.config(tmp_path / 'stopped', **TWO, **summed), resume=True)
    whole = train_detector(toy.config(tmp_path / 'whole', **TWO, **summed)).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(('epoch', 'number'), [(1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGINT)])
def test_a_validation_that_was_cut_short_is_done_again(tmp_path, epoch, number):
    stopped(tmp_path, 4 * epoch, 'val', number)
    assert validations(tmp_path) == epoch - 1
    model = train_detector(toy.config(tmp_path, **TWO), resume=True)
    assert model.calls == 4 * (2 - epoch)
    assert validations(tmp_path) == 2
    assert 'best_coco_bbox_mAP_epoch_1.pth' in checkpoints(tmp_path)


def test_signals_are_given_back(tmp_path):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    train_detector(toy.config(tmp_path / 'whole', **{'train_cfg.max_epochs': 1}))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    stopped(tmp_path / 'stopped', 1, number=signal.SIGINT)  # as in a notebook, which lives on
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_the_log_says_how_to_go_on(tmp_path):
    stopped(tmp_path, 1, number=signal.SIGINT)
    (log,) = tmp_path.glob('*/*.log')
    assert f'after iteration 2. Saved {tmp_path}/iter_2.pth; go on with --resume' in log.read_text()


def test_an_interrupt_before_the_first_iteration_saves_nothing(tmp_path):
    stopped(tmp_path / 'new', 0, 'set-up', signal.SIGINT, says='before the first iteration, nothing to save yet')
    assert not (tmp_path / 'new').exists()
    stopped(tmp_path / 'begun', 5, number=signal.SIGINT, says='Stopped after iteration 6')
    hook = dict(type='SignalHook', number=int(signal.SIGINT), iteration=0, stage='set-up')
    with pytest.raises(Interrupted) as info:
        train_detector(toy.config(tmp_path / 'begun', custom_hooks=[hook], **TWO), resume=True)
    assert info.value.checkpoint is None  # what was saved before is still the newest
    assert pointed(tmp_path / 'begun')['meta']['iter'] == 6


def test_an_interrupt_while_the_run_is_built(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(toy.ToyDataset, 'load_data_list', interrupted)
    with pytest.raises(Interrupted, match='nothing to save yet'):
        train_detector(toy.config(tmp_path / 'work', **TWO))
    assert not (tmp_path / 'work').exists()


def test_a_starting_worker_leaves_the_signal_to_its_parent(capfd):
    hook = StopHook()
    hook._process += 1
    hook._note(signal.SIGINT, None)
    assert hook.number == 0 and not capfd.readouterr().err


def test_an_interrupt_without_a_checkpoint_hook(tmp_path):
    stopped(tmp_path, 1, number=signal.SIGINT, **{'default_hooks.checkpoint': None})
    (log,) = tmp_path.glob('*/*.log')
    assert 'after iteration 2. No CheckpointHook saves it' in log.read_text()


@pytest.mark.parametrize('own', [signal.SIG_IGN, lambda number, frame: None])
def test_an_interrupt_that_is_ignored_or_handled_is_left_so(tmp_path, own):
    """A shell starts its background jobs with SIGINT ignored."""
    signal.signal(signal.SIGINT, own)
    hook = dict(type='SignalHook', number=int(signal.SIGINT), iteration=1)
    model = train_detector(toy.config(tmp_path, custom_hooks=[hook], **{'train_cfg.max_epochs': 1}))
    assert model.calls == 4
    assert signal.getsignal(signal.SIGINT) == own


def test_a_second_interrupt_ends_at_once(monkeypatch, capfd):
    """Within a second it counts as the first: launchers pass on what the processes got themselves."""
    now = 100.0
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    hook = StopHook()
    hook._note(signal.SIGINT, None)
    assert 'Ctrl-C again ends at once' in capfd.readouterr().err
    now += SAME / 2
    hook._note(signal.SIGINT, None)
    now += SAME
    with pytest.raises(KeyboardInterrupt):
        hook._note(signal.SIGINT, None)


def test_only_the_main_process_answers(monkeypatch, capfd):
    monkeypatch.setattr('frdet.engine.hooks.stop.is_main_process', lambda: False)
    hook = StopHook()
    hook._note(signal.SIGINT, None)
    assert hook.number == signal.SIGINT and not capfd.readouterr().err


def test_nothing_disturbs_the_end():
    """What is logged is written, and a launcher that repeats the signal does not end the process before it has left."""
    hook, closed = StopHook(), []
    visualizer = SimpleNamespace(close=lambda: closed.append(True))
    runner = SimpleNamespace(hooks=[], iter=2, logger=logging.getLogger('stop'), visualizer=visualizer)
    with pytest.raises(SystemExit), hook.catching():
        hook._leave(runner, signal.SIGTERM)
    assert closed == [True]
    assert {signal.getsignal(number) for number in SIGNALS} == {signal.SIG_IGN}


def test_a_thread_cannot_catch_signals():
    def run():
        with StopHook().catching():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result() == signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize('validated', [True, False])
def test_all_loaders_start_workers_that_survive(validated):
    loaders = [SimpleNamespace(worker_init_fn='own') for _ in range(2)]
    runner = SimpleNamespace(train_dataloader=loaders[0], val_dataloader=loaders[1], iter=0)
    runner.val_loop = object() if validated else None
    StopHook().before_train(runner)
    survive = [getattr(one.worker_init_fn, 'func', None) is _init_worker for one in loaders]
    assert survive == [True, validated]
    assert loaders[0].worker_init_fn.args == ('own',)


def test_a_worker_ends_for_its_parent_only():
    """It runs the loader's own function. Ctrl-C and the signal of a launcher reach it, too, and do not end it."""
    end, start = os.pipe()
    if (worker := os.fork()) == 0:
        _init_worker(lambda number: os.write(start, b'%d' % number), 3)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        time.sleep(0.05)
        os.write(start, b' lives')
        time.sleep(10)
        os._exit(1)
    os.close(start)
    found = b''
    while not found.endswith(b' lives'):
        found += (read := os.read(end, 9))
        assert read, found
    assert found == b'3 lives'
    os.kill(worker, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0


def test_several_optimisers_have_no_summed_gradients():
    hook, left = StopHook(), []
    hook._leave = lambda runner, number: left.append(number)
    runner = SimpleNamespace(optim_wrapper=OptimWrapperDict(a=OptimWrapper(SGD([torch.zeros(1)], lr=1))))
    hook.before_train_iter(runner, 0)
    assert left == []
    hook.number = signal.SIGUSR1
    hook.before_train_iter(runner, 0)
    assert left == [signal.SIGUSR1]


def write_slow(path, **changes):
    """A config that trains for minutes, with workers."""
    loader = {f'{split}_dataloader.num_workers': 2 for split in ('train', 'val')}
    config = write_config(path, **{'train_cfg.max_epochs': 1000, **loader, **changes})
    config.write_text(config.read_text().replace('tests.engine.toy', 'tests.engine.hooks.test_stop'))  # imports both
    return config


@pytest.fixture
def start():
    """Starts the tool in a process group of its own."""
    started = []
    yield lambda *args, **env: started.append(_start(*args, **env)) or started[-1]
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _start(config, work_dir, python=sys.executable, **env):
    command = [python, 'tools/train.py', str(config), '--work-dir', str(work_dir)]
    if env:
        command += ['--launcher', 'pytorch']
    env = {**os.environ, 'PYTHONPATH': str(toy.ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **env}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, cwd=toy.ROOT, env=env, start_new_session=True, preexec_fn=heed_ctrl_c, **pipes)


def wait_for(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError(''.join(lines))


def end(process):
    """Its exit code and last words, when no process of its group is left."""
    shown, _ = process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return process.returncode, shown
        time.sleep(0.1)
    raise AssertionError('a worker was left')


def test_the_whole_group_is_told(start, tmp_path):
    """As by ``timeout``, a scheduler, or ``pkill -f train.py``: the workers get the signal, too."""
    config = write_slow(tmp_path / 'slow.py', custom_hooks=[dict(type='SleepHook', seconds=3)])
    process = start(config, tmp_path / 'work')
    wait_for(process, 'hangs')
    os.killpg(process.pid, signal.SIGTERM)
    time.sleep(SAME / 4)
    os.killpg(process.pid, signal.SIGTERM)  # a launcher passes it on
    code, shown = end(process)
    assert code == 75, shown
    assert 'Traceback' not in shown
    assert pointed(tmp_path / 'work')['meta']['iter'] == 2


def test_a_second_signal_ends_at_once(start, tmp_path):
    config = write_slow(tmp_path / 'slow.py', custom_hooks=[dict(type='SleepHook', seconds=60)])
    process = start(config, tmp_path / 'work')
    wait_for(process, 'hangs')
    process.send_signal(signal.SIGTERM)
    time.sleep(SAME + 0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == -signal.SIGTERM
    assert not checkpoints(tmp_path / 'work')


def test_interrupted_by_the_keyboard(start, tmp_path):
    process = start(write_slow(tmp_path / 'slow.py'), tmp_path / 'work')
    wait_for(process, 'checkpoint at 2 epochs')
    os.killpg(process.pid, signal.SIGINT)
    code, shown = end(process)
    assert code == 130, shown
    assert 'Traceback' not in shown
    iteration = pointed(tmp_path / 'work')['meta']['iter']
    assert f'after iteration {iteration}. Saved ' in shown
    assert shown.endswith(
        f'Stopped after iteration {iteration}; '
        f'the newest checkpoint is {tmp_path}/work/iter_{iteration}.pth. To go on:\n'
        f'    python tools/train.py {tmp_path}/slow.py --work-dir {tmp_path}/work --resume\n'
    )
    assert iteration >= 8  # of 4 in an epoch


def test_processes_leave_together(start, tmp_path):
    """The second of two gets the signal; both leave after the same iteration, and the first saves."""
    config = write_slow(tmp_path / 'slow.py')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    env = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    python = warm.python()
    both = [start(config, tmp_path / 'work', python, RANK=str(r), LOCAL_RANK=str(r), **env) for r in range(2)]
    wait_for(both[0], 'checkpoint at 2 epochs')
    both[1].send_signal(signal.SIGUSR1)
    ends = [end(process) for process in both]
    assert [code for code, _ in ends] == [75, 75], ends
    iteration = pointed(tmp_path / 'work')['meta']['iter']
    assert iteration >= 4  # of 2 in an epoch
    assert f'after iteration {iteration}' in ends[0][1]
