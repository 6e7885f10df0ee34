"""A Python that starts without the seconds of importing torch: each process is forked from one that has done it.

``python()`` is the path of an executable that takes a script, ``-m`` and a module, or ``-c`` and code, as Python does.
What it runs is a process of its own, with the folder, environment and streams of its caller, and its own exit code.
Only packages of others are imported before the fork: a command imports frdet itself. The executable passes SIGINT,
SIGTERM and SIGUSR1 on to the process, ends by the signal that ended the process, and the process is killed with it.
The process is not in the group of its caller: tests of whole groups, and of what is left behind, start
``sys.executable``. All test processes of a run share the process that is forked, which ends with the run.
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

# What the tools import, and MMEngine and PyTorch when a training begins; tests/test_warm.py holds that no file of frdet
# uses one of these packages without importing it.
PACKAGES = (
    'torch', 'cv2', 'mmengine.runner', 'matplotlib.figure', 'matplotlib.backends.backend_agg',
    'matplotlib.backends.backend_svg', 'torchvision', 'setuptools', 'distutils', 'torch.utils.tensorboard',
)  # fmt: skip

_servers: list[subprocess.Popen] = []  # kept, so that Python does not warn that it runs on

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
words = sys.argv[1:]
if words[:1] == ['-u']:
    del words[0]
if not words or words[0].startswith('-') and words[0] not in ('-c', '-m'):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
heeded = [n for n in {signals} if signal.getsignal(n) != signal.SIG_IGN]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b'0'], [0, 1, 2])
request = dict(
    words=words, unbuffered=words != sys.argv[1:], folder=os.getcwd(), env=dict(os.environ), heeded=heeded,
    executable=os.path.abspath(sys.argv[0]),
)
server.sendall(json.dumps(request).encode() + b'\\n')
answers = server.makefile()
process = int(answers.readline())
def pass_on(number, frame):
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass
for number in heeded:
    signal.signal(number, pass_on)
code = int(answers.readline() or 1)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@functools.cache
def python() -> Path:
    """The executable, called ``python`` and alone in its folder. The first call starts the process that is forked."""
    import torch

    if torch.cuda.is_available():  # CUDA does not survive a fork
        return Path(sys.executable)
    shared = os.environ.get('PYTEST_XDIST_TESTRUNUID')
    owner = (
        os.getppid() if shared else os.getpid()
    )  # with xdist, the process that starts and outlives the test processes
    folder = Path(tempfile.gettempdir()) / f'frdet-{shared or uuid.uuid4().hex}'
    folder.mkdir(mode=0o700, exist_ok=True)
    address, executable = folder / 'server', folder / 'bin' / 'python'
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if executable.exists():
            return executable
        command = [sys.executable, __file__, str(address), str(owner)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        _servers.append(server)
        assert server.stdout and server.stdout.readline() == b'ready\n'
        executable.parent.mkdir()
        text = STAND_IN.format(python=sys.executable, address=str(address), signals=tuple(map(int, PASSED_ON)))
        executable.touch(0o755)
        executable.write_text(text)
    return executable


def launching() -> dict[str, str]:
    """The environment in which tools/dist_train.sh and torchrun start the executable."""
    return {'PYTHON': str(python()), 'PYTHON_EXEC': str(python())}


def serve(address: str, owner: int) -> list[str]:
    """Fork a process for each request until ``owner`` ends. Returns, in the new process, the words after ``python``."""
    for name in PACKAGES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a process would copy the memory that all share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print('ready', flush=True)
    ended = os.pidfd_open(owner)
    while ended not in select.select([listener, ended], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
            request = json.loads(connection.makefile().readline())
            process = os.fork()
            if process == 0:
                connection.close()
                return take_over(request, streams)
            for stream in streams:
                os.close(stream)
            wait(process, connection)
            os._exit(0)
        connection.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)
    sys.exit()


def wait(process: int, connection: socket.socket) -> None:
    """Tell the executable the id of the process, then its exit code. If the executable ends first, kill the process."""
    connection.sendall(f'{process}\n'.encode())
    ended = os.pidfd_open(process)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(f'{code}\n'.encode())


def take_over(request: dict, streams: list[int]) -> list[str]:
    """Become the process that is asked for."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(write_through=request['unbuffered'])
    for number in PASSED_ON:
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual if number in request['heeded'] else signal.SIG_IGN)
    before = {sys.path[0], *paths()}
    os.environ.clear()
    os.environ.update(request['env'])
    os.chdir(request['folder'])
    sys.executable = request['executable']  # processes that a command starts are forked, too
    sys.path[:] = ['', *paths(), *(path for path in sys.path if path not in before)]
    sys.modules['numpy'].random.seed()  # as at its import; Python's own generator does it after each fork
    return request['words']


def paths() -> list[str]:
    return [os.path.abspath(path) for path in os.environ.get('PYTHONPATH', '').split(os.pathsep) if path]


def run(script: str, *words: str) -> None:
    """Run a script, the module after ``-m``, or the code after ``-c``, as Python does."""
    sys.path[0] = {'-c': '', '-m': os.getcwd()}.get(script, str(Path(script).resolve().parent))
    sys.argv = [script, *words]
    if script == '-m':
        del sys.argv[0]
        runpy.run_module(words[0], run_name='__main__', alter_sys=True)
    elif script == '-c':
        del sys.argv[1]
        exec(compile(words[0], '<string>', 'exec'), {'__name__': '__main__'})
    else:
        runpy.run_path(script, run_name='__main__')


def end(code: int) -> None:
    """What Python does at its end, but for taking the modules down: it would copy all the memory that is shared."""
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):  # nobody reads it
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    words = serve(sys.argv[1], int(sys.argv[2]))
    try:
        run(*words)
    except KeyboardInterrupt:
        raise
    except SystemExit as exit_:
        if not isinstance(exit_.code, (int, type(None))):
            print(exit_.code, file=sys.stderr)
        end(exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        end(1)
    end(0)
