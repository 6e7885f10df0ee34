"""The processes that tests start are such as a user's Python starts."""

import json
import os
import subprocess
import sys

import pytest

from tests import warm
from tests.engine.toy import ROOT

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


@pytest.mark.parametrize(('body', 'code'), [('1 / 0', 1), ('pass', 0), ('import os; os.kill(os.getpid(), 9)', 137)])
def test_exit_code(tmp_path, body, code):
    (tmp_path / 'a.py').write_text(body)
    done = subprocess.run([warm.python(), tmp_path / 'a.py'], capture_output=True, text=True)
    assert done.returncode == code
    assert ('ZeroDivisionError' in done.stderr) == (code == 1)


def test_what_ends_at_exit(tmp_path):
    (tmp_path / 'a.py').write_text("import atexit; atexit.register(print, 'ended'); print('begun')")
    assert subprocess.check_output([warm.python(), tmp_path / 'a.py'], text=True) == 'begun\nended\n'


def test_in_a_pipe(tmp_path):
    """Two run at once: more is written than a pipe holds, and what reads it is a process of the same server."""
    (tmp_path / 'writes.py').write_text("print('x' * 1_000_000)")
    (tmp_path / 'reads.py').write_text('import sys; print(len(sys.stdin.read()))')
    line = f'{warm.python()} writes.py | {warm.python()} reads.py'
    assert subprocess.check_output(line, shell=True, cwd=tmp_path, text=True) == '1000001\n'


def test_no_tool_has_more_imported_than_it_imports():
    """Else a tool that forgets an import of its own would work in the tests, and nowhere else."""
    apart = {'doctor.py'}  # which no test starts so
    tools = {path.name: path.read_text() for path in (ROOT / 'tools').glob('*.py')}
    assert {name for name, text in tools.items() if '\nfrom frdet.apis import ' not in text} == apart
    before, alone = (
        set(subprocess.check_output([sys.executable, '-c', f'import sys, {names}; print(*sys.modules)']).split())
        for names in (', '.join(warm.PACKAGES), 'frdet.apis')
    )
    assert before <= alone
