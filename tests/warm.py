"""A Python that starts without the seconds of importing torch: each process is forked from one that has done it.

``python()`` is the path of an executable that takes a script, ``-m`` and a module, or ``-c`` and code, as Python does.
What it runs is a process of its own, with the folder, environment and streams of its caller, and its own exit code.
Only packages of others are imported before the fork: a command imports frdet itself. The executable passes SIGINT,
SIGTERM and SIGUSR1 on to the process, ends by the signal that ended the process, and the process is killed with it.
The process is not in the group of its caller: tests of whole groups, and of what is left behind, start
``sys.executable``.
"""

import atexit
import contextlib
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
from pathlib import Path

# What the tools import, and MMEngine and PyTorch when a training begins; tests/test_warm.py holds that no file of frdet
# uses one of these packages without importing it.
PACKAGES = (
    'torch', 'cv2', 'mmengine.runner', 'matplotlib.figure', 'matplotlib.backends.backend_agg',
    'matplotlib.backends.backend_svg', 'torchvision', 'setuptools', 'distutils', 'torch.utils.tensorboard',
)  # fmt: skip

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
request = dict(words=words, unbuffered=words != sys.argv[1:], folder=os.getcwd(), env=dict(os.environ), heeded=heeded)
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
    folder = Path(tempfile.mkdtemp(prefix='frdet-'))
    atexit.register(shutil.rmtree, folder)
    address = str(folder / 'server')
    server = subprocess.Popen([sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin and server.stdout and server.stdout.readline() == b'ready\n'
    atexit.register(server.stdin.close)  # which ends it
    executable = folder / 'bin' / 'python'
    executable.parent.mkdir()
    executable.write_text(STAND_IN.format(python=sys.executable, address=address, signals=tuple(map(int, PASSED_ON))))
    executable.chmod(0o755)
    return executable


def launching() -> dict[str, str]:
    """The environment in which tools/dist_train.sh and torchrun start the executable."""
    return {'PYTHON': str(python()), 'PYTHON_EXEC': str(python())}


def serve(address: str) -> list[str]:
    """Fork a process for each request until stdin is closed. Returns, in that process, the words after ``python``."""
    for name in PACKAGES:
        importlib.import_module(name)
    remember_formatted_configs()
    gc.freeze()  # a collection in a process would copy the memory that all share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print('ready', flush=True)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
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
    sys.exit()


def remember_formatted_configs() -> None:
    """A run asks eight times for the text of its config, and formatting it takes longer than a small step."""
    from mmengine.config import config

    format_code, known = config.FormatCode, {}

    def remembered(text: str, **style: object) -> tuple[str, bool]:
        key = text, repr(style)
        if key not in known:
            known[key] = format_code(text, **style)
        return known[key]

    config.FormatCode = remembered


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


if __name__ == '__main__':
    run(*serve(sys.argv[1]))
