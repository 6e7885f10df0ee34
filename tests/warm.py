"""A Python that starts without the seconds of importing torch: each process is forked from one that has done it.

``python()`` is the path of an executable that takes a script, ``-m`` and a module, or ``-c`` and code, as Python does.
What it runs is a process of its own, with the folder, environment and streams of its caller, and its own exit code.
Only packages of others are imported before the fork: a command imports frdet itself. A signal that is sent to the
executable does not reach the process, so tests of signals start ``sys.executable``.
"""

import atexit
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

# No more than every tool imports, or a tool that forgets an import of its own would work here and nowhere else.
PACKAGES = ('torch', 'cv2', 'mmengine.runner', 'matplotlib.figure', 'matplotlib.backends.backend_svg')

STAND_IN = """#!{python} -IS
import json, os, socket, sys
if len(sys.argv) < 2 or sys.argv[1].startswith('-') and sys.argv[1] not in ('-c', '-m'):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [b'0'], [0, 1, 2])
server.sendall(json.dumps(dict(words=sys.argv[1:], folder=os.getcwd(), env=dict(os.environ))).encode())
server.shutdown(socket.SHUT_WR)
code = int(server.makefile().read() or 1)
sys.exit(code if code >= 0 else 128 - code)
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
    executable.write_text(STAND_IN.format(python=sys.executable, address=address))
    executable.chmod(0o755)
    return executable


def serve(address: str) -> list[str]:
    """Fork a process for each request until stdin is closed. Returns, in that process, the words after ``python``."""
    for name in PACKAGES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a process would copy the memory that all share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print('ready', flush=True)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        with connection:
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                process = os.fork()
                if process == 0:
                    return take_over(connection)
                code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                connection.sendall(str(code).encode())
                os._exit(0)
    sys.exit()


def take_over(connection: socket.socket) -> list[str]:
    """Become the process that is asked for."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    request = json.load(connection.makefile())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
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
