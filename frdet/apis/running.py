"""Running a command-line tool: common arguments, printed errors and the exit code."""

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import Config

from frdet.apis.launch import LAUNCHERS
from frdet.apis.own_data.replacing import use_data
from frdet.config import load_config
from frdet.errors import Interrupted, UserError
from frdet.interrupts import INTERRUPTED


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments of ``add_config``."""
    parser = argparse.ArgumentParser(description=description)
    add_config(parser)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the arguments ``config`` and ``--cfg-options``."""
    parser.add_argument('config', help='path of the config')
    add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config: a.b.0.c=VALUE'
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``config``, which may be left out, ``checkpoint`` and ``--cfg-options``.

    Parse with ``parse_intermixed_args``: ``parse_args`` does not find both where an option stands before them.
    """
    parser.add_argument('config', nargs='?', help='path of the config; default: the config in the checkpoint')
    parser.add_argument('checkpoint', help='path or URL of the weights')
    add_cfg_options(parser)


def parse_run(parser: argparse.ArgumentParser) -> tuple[Config, dict[str, Any]]:
    """Parse the arguments of ``parser`` and those of both training and testing.

    Returns:
        The config, and the other arguments for ``train_detector`` or ``test_detector``.
    """
    parser.add_argument('--data', metavar='FOLDER', help="other data with the classes of the config's, in any format")
    parser.add_argument('--work-dir', help='folder of checkpoints and logs; default: work_dirs/<name of the config>')
    parser.add_argument('--amp', action='store_true', help='bfloat16 where it is safe, on CPU and GPU')
    parser.add_argument('--safe-config', action='store_true', help='read the config as data, without running it')
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='starter of several processes, if any')
    arguments = vars(parser.parse_args())
    path, options, safe, data = (arguments.pop(name) for name in ('config', 'cfg_options', 'safe_config', 'data'))
    cfg = load_config(path, options, safe=safe)
    if data is not None:
        use_data(cfg, data, checkpoint=arguments.get('checkpoint'))
    return cfg, arguments


def run_tool(main: Callable[[], int | None]) -> None:
    """Call ``main`` and end the process.

    The exit code is the result of ``main`` (0 for None), 1 after a ``UserError``, and 130 after Ctrl-C. Of a
    ``UserError`` only the message is printed, unless ``FRDET_TRACEBACK=1``. A reader that closes the pipe early, such
    as ``| head``, is no error.
    """
    code: int | None
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        if os.environ.get('FRDET_TRACEBACK', '0') not in ('', '0'):
            traceback.print_exc()
        rank = os.environ.get('RANK', '0')
        print(f'error: {error}' if rank == '0' else f'error (process {rank}): {error}', file=sys.stderr)
        code = 1
    except BrokenPipeError:
        # Python would flush again at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (KeyboardInterrupt, Exception) as error:
        # MMEngine turns an interrupt while it formats a config, for example for a checkpoint, into SyntaxError.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        if os.environ.get('RANK', '0') == '0':
            print(farewell(error, sys.argv), file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


def farewell(error: BaseException, argv: Sequence[str]) -> str:
    """The last words after Ctrl-C: where a training stopped, its checkpoint, and the command that goes on from it.

    Args:
        error: what ended the tool.
        argv: the command line of the tool.
    """
    if not isinstance(error, Interrupted):
        return 'Interrupted'
    words = list(argv)
    if error.checkpoint is not None:
        words = [word for word in words if word != '--overwrite']  # it would move the checkpoint away
        words = _without_resume(words)
    if not {'--resume', '--overwrite'} & set(words):
        words.append('--resume')
    command = shlex.join(['python', *words])
    saved = f'; the newest checkpoint is {error.checkpoint}' if error.checkpoint is not None else ''
    if 'RANK' in os.environ or 'SLURM_PROCID' in os.environ:
        return f'{error}{saved}. To go on, start the same command with --resume'
    return f'{error}{saved}. To {"go on" if saved else "start again"}:\n    {command}'


def _without_resume(words: list[str]) -> list[str]:
    """``words`` without ``--resume`` and its path."""
    kept: list[str] = []
    after = False
    for word in words:
        is_option = word.split('=')[0] == '--resume'
        if not is_option and not (after and not word.startswith('-')):
            kept.append(word)
        after = word == '--resume'
    return kept
