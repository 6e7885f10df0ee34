"""What a tool prints where something is wrong, and its exit code."""

import os
import signal
import subprocess
import time
from pathlib import Path
from textwrap import dedent, indent

import pytest

from frdet.apis.running import farewell
from frdet.errors import Interrupted
from tests import warm
from tests.signals import heed_ctrl_c

ROOT = Path(__file__).resolve().parents[2]


SCRIPT = """
from frdet.apis.running import run_tool
from frdet.errors import ConfigError

def main():
{body}

run_tool(main)
"""


def start(body, **env):
    return subprocess.Popen(
        [warm.python(), '-c', SCRIPT.format(body=indent(dedent(body), '    '))],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(('body', 'code'), [('print(1)', 0), ('return 3', 3)])
def test_exit_code_of_main(body, code):
    assert ended(start(body))[0] == code


def test_user_error_is_printed_alone():
    assert ended(start("raise ConfigError('a is wrong')")) == (1, '', 'error: a is wrong\n')


def test_user_error_with_traceback():
    code, _, err = ended(start("raise ConfigError('a is wrong')", FRDET_TRACEBACK='1'))
    assert code == 1
    assert 'Traceback' in err and err.endswith('error: a is wrong\n')


def test_other_processes_say_who_they_are():
    assert ended(start("raise ConfigError('a')", RANK='2'))[2] == 'error (process 2): a\n'


def test_a_bug_keeps_its_traceback():
    code, _, err = ended(start("raise TypeError('bug')"))
    assert code == 1
    assert 'Traceback' in err and 'TypeError: bug' in err


def test_interrupt():
    process = start("import time; print('begun', flush=True); time.sleep(30)")
    assert process.stdout.readline() == 'begun\n'
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert (code, err) == (130, 'Interrupted\n')


TRAIN = ['tools/train.py', 'my config.py', '--work-dir', 'w']
SAVED = Interrupted('Stopped after iteration 7', 'w/iter_7.pth')
UNSAVED = Interrupted('Stopped before the first iteration, nothing to save yet')


@pytest.mark.parametrize(
    ('error', 'given', 'expected'),
    [
        (SAVED, [], ['--resume']),
        (SAVED, ['--resume'], ['--resume']),
        (SAVED, ['--resume', 'a.pth', '--amp'], ['--amp', '--resume']),
        (SAVED, ['--resume=a.pth', '--seed', '3'], ['--seed', '3', '--resume']),
        (SAVED, ['--overwrite', '--cfg-options', 'a=1'], ['--cfg-options', 'a=1', '--resume']),
        (UNSAVED, ['--amp'], ['--amp', '--resume']),
        (UNSAVED, ['--resume', 'a.pth'], ['--resume', 'a.pth']),
        (UNSAVED, ['--overwrite'], ['--overwrite']),  # --resume would go on with the run that shall be moved
    ],
)
def test_the_command_to_go_on(error, given, expected):
    *_, command = farewell(error, [*TRAIN, *given]).split('\n    ')
    assert command == ' '.join(["python tools/train.py 'my config.py' --work-dir w", *expected])


def test_the_last_words(monkeypatch):
    assert farewell(SAVED, TRAIN).startswith(
        'Stopped after iteration 7; the newest checkpoint is w/iter_7.pth. To go on:\n'
    )
    assert farewell(UNSAVED, TRAIN).startswith(
        'Stopped before the first iteration, nothing to save yet. To start again:\n'
    )
    assert farewell(KeyboardInterrupt(), TRAIN) == 'Interrupted'
    monkeypatch.setenv('RANK', '0')  # torchrun has started this process
    assert farewell(SAVED, TRAIN).endswith('To go on, start the same command with --resume')


def test_an_interrupt_that_became_another_error():
    body = """
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise SyntaxError('config')"""
    assert ended(start(body)) == (130, '', 'Interrupted\n')


def test_a_reader_that_closes_early():
    process = start("[print('x' * 1000, flush=True) for _ in range(5000)]")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ''
    process.stderr.close()
