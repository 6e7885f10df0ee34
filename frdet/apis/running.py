"""Running a command-line tool: what it prints where something is wrong, and its exit code."""

import os
import sys
import traceback
from collections.abc import Callable

from frdet.errors import UserError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def run_tool(main: Callable[[], int | None]) -> None:
    """Call ``main`` and end the process.

    The exit code is what ``main`` returns (None is 0); 1 after a ``UserError``, whose message is printed alone unless
    ``FRDET_TRACEBACK=1``; 130 after Ctrl-C. A reader that closes the pipe early, as ``| head``, is no error.
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
        # MMEngine turns an interrupt that meets it formatting a config, as it does for a checkpoint, into SyntaxError.
        if not isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        print('Interrupted', file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)
