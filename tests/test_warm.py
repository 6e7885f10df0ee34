"""The processes that tests start are such as a user's Python starts."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import warm
from tests.engine.toy import ROOT
from tests.signals import heed_ctrl_c

TELLS = """
import json, os, random, sys
import numpy
print(json.dumps(dict(
    words=sys.argv, name=__name__, folder=os.getcwd(), env=os.environ['GIVEN'], path=sys.path[:3],
    read=sys.stdin.read(), drawn=[random.random(), numpy.random.rand()], frdet='frdet' in sys.modules,
)))
print('said', file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / 'scripts').mkdir()
    path = tmp_path / 'scripts' / 'tells.py'
    path.write_text(TELLS)
    return path


@pytest.mark.parametrize('way', [['scripts/tells.py'], ['-m', 'scripts.tells'], ['-c', TELLS]])
def test_it_is_as_python(script, tmp_path, way):
    env = {**os.environ, 'GIVEN': 'value', 'PYTHONPATH': f'lib{os.pathsep}{ROOT}'}
    told = []
    for python in (sys.executable, warm.python(), warm.python()):
        command = [python, *way, 'a', 'b c']
        done = subprocess.run(command, cwd=tmp_path, env=env, input='typed', capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (7, 'said\n')
        told.append(json.loads(done.stdout))
    drawn = [tuple(answer.pop('drawn')) for answer in told]
    assert len({number for numbers in drawn for number in numbers}) == 6
    assert told[0] == told[1] == told[2]
    assert (told[0]['read'], told[0]['env'], told[0]['frdet']) == ('typed', 'value', False)


@pytest.mark.parametrize(
    ('body', 'code'),
    [('1 / 0', 1), ('pass', 0), ('import os; os.kill(os.getpid(), 9)', -9), ('exit(137)', 137), ("exit('why')", 1)],
)
def test_exit_code(tmp_path, body, code):
    (tmp_path / 'a.py').write_text(body)
    done = subprocess.run([warm.python(), tmp_path / 'a.py'], capture_output=True, text=True)
    assert done.returncode == code
    assert ('ZeroDivisionError' in done.stderr) == ('/' in body) and (done.stderr == 'why\n') == ('why' in body)


HEEDS = """
import os, signal, sys, time
def told(number, frame):
    print('told', number, flush=True)
    sys.exit(3)
signal.signal(signal.SIGUSR1, told)
print(os.getpid(), signal.getsignal(signal.SIGINT) == signal.SIG_IGN, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ('number', 'said', 'code'),
    [
        (signal.SIGUSR1, f'told {int(signal.SIGUSR1)}\n', 3),
        (signal.SIGTERM, '', -signal.SIGTERM),
        (signal.SIGINT, '', -signal.SIGINT),
        (signal.SIGKILL, '', -signal.SIGKILL),
    ],
)
def test_signals(number, said, code):
    """They reach the process, which has its own handlers; none outlives the executable."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    started = subprocess.Popen([warm.python(), '-c', HEEDS], preexec_fn=heed_ctrl_c, **pipes)
    process, ignored = started.stdout.readline().split()
    assert ignored == 'False' and int(process) != started.pid
    started.send_signal(number)
    assert started.communicate(timeout=20)[0] == said
    assert started.returncode == code
    deadline = time.monotonic() + 20
    while Path(f'/proc/{process}').exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_that_the_caller_ignores():
    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    for python in (sys.executable, warm.python()):
        started = subprocess.Popen([python, '-c', HEEDS], preexec_fn=ignore, stdout=subprocess.PIPE, text=True)
        assert started.stdout.readline().split()[1] == 'True'
        started.kill()
        started.communicate(timeout=20)


def test_what_ends_at_exit(tmp_path):
    """Threads end first, then what is registered; a process of multiprocessing does not outlive them."""
    (tmp_path / 'a.py').write_text("""
import atexit, multiprocessing, threading, time
multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,), daemon=True).start()
atexit.register(print, 'ended')
threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()
print('begun')
""")
    begun = time.monotonic()
    assert subprocess.check_output([warm.python(), tmp_path / 'a.py'], text=True) == 'begun\nthread\nended\n'
    assert time.monotonic() - begun < 30


def test_in_a_pipe(tmp_path):
    """Two run at once: more is written than a pipe holds, and what reads it is a process of the same server."""
    (tmp_path / 'writes.py').write_text("print('x' * 1_000_000)")
    (tmp_path / 'reads.py').write_text('import sys; print(len(sys.stdin.read()))')
    line = f'{warm.python()} writes.py | {warm.python()} reads.py'
    assert subprocess.check_output(line, shell=True, cwd=tmp_path, text=True) == '1000001\n'


def test_files_import_what_they_use():
    """Packages are imported before the fork: a file that uses one of their modules without an import would work here.

    ``a.b`` means a module only after ``import a``; the other forms of import name the module in full. What ``import a``
    alone gives is no mistake.
    """
    loaded = set(subprocess.check_output([warm.python(), '-c', 'import sys; print(*sys.modules)'], text=True).split())
    used: set[str] = {'torch.nn'}
    for path in (path for folder in ('frdet', 'tools') for path in (ROOT / folder).rglob('*.py')):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        roots = {name.partition('.')[0] for name in imported}
        names = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)} & loaded
        used |= {name for name in names - imported if name.partition('.')[0] in roots}
    roots = sorted({name.partition('.')[0] for name in used})
    subprocess.run([sys.executable, '-c', f'import {", ".join(roots)}; {"; ".join(sorted(used))}'], check=True)
