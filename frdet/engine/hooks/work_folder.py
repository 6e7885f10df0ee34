"""A work folder that holds a run: another one does not begin there, unless the first is moved aside."""

import re
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.errors import ConfigError

POINTER = 'last_checkpoint'
CHECKPOINTS = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth', 'non_finite_*.pth')  # the last of NonFiniteHook
TABLE = 'results.csv'
#: What the report of a run writes into the work folder: the table, the plots and the page.
REPORT = (
    TABLE,
    'curves.png',
    'labels.png',
    'precision_recall.png',
    'classes.png',
    'confusion_matrix.png',
    'errors.png',
    'report.html',
)
LOG = '*/vis_data/scalars.json'
SHOWN = 3  # files named in an error
#: Work folders in which this process has trained.
_trained: set[Path] = set()


def is_run_in_the_way(cfg: Config, *, overwrite: bool) -> bool:
    """Whether the work folder holds a run that has to be moved aside before training begins there.

    A run that this process has trained itself, as a notebook's cell does that is run again, may be moved without
    ``overwrite``. A run that training goes on with, from one of its own checkpoints, is not in the way.

    Args:
        cfg: with ``work_dir``, and with ``load_from`` and ``resume`` as training will use them.
        overwrite: whether the user has asked to move a run aside.

    Raises:
        ConfigError: there is such a run, and nobody has asked to move it aside.
    """
    folders = _folders(cfg)
    patterns = (POINTER, *_checkpoints(cfg), TABLE, LOG)
    paths = [(folder, path) for folder in folders for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not paths or overwrite:
        return bool(paths)
    if cfg.get('resume') and (cfg.get('load_from') is None or _is_in(cfg.load_from, folders)):
        return False
    if folders[0].resolve() in _trained:
        return True
    names = list(dict.fromkeys(str(path.relative_to(folder)) for folder, path in paths))
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    raise ConfigError(
        f'{cfg.work_dir} holds a run already ({", ".join(names[:SHOWN])}{more}), and a second one would mix with it.\n'
        'Go on with that run (--resume, in Python resume=True), move it aside (--overwrite, in Python overwrite=True), '
        'or give another --work-dir'
    )


class WorkFolderHook(Hook):
    """Remembers that this process trains in the work folder, after it has moved the run that is there aside.

    Checkpoints, logs, table and plots of that run go to ``old_1`` in the folder, or ``old_2`` and so on; other files
    stay. It happens right before the first iteration: by then data and weights are loaded, so that a mistake in the
    config moves nothing.

    Args:
        cfg: the config of the run that begins.
        move: whether there is a run to move.
    """

    priority = 'LOW'  # after hooks that check what was built, before those that write into the folder

    def __init__(self, cfg: Config, *, move: bool):
        self.cfg = cfg
        self.move = move
        # The Runner writes its config over that of the run before it, when it is built.
        config = Path(cfg.work_dir, Path(cfg.filename or '').name)
        self.config = config.read_bytes() if move and config.is_file() else None

    def before_train(self, runner: Runner) -> None:
        """Move the run, on the first process; the others wait for it."""
        if self.move:
            for folder in _folders(self.cfg) if is_main_process() else ():
                self._move(folder, runner)
            barrier()
        _trained.add(Path(runner.work_dir).resolve())

    def _move(self, folder: Path, runner: Runner) -> None:
        patterns = (POINTER, *_checkpoints(self.cfg), *REPORT)
        paths = dict.fromkeys(path for pattern in patterns for path in sorted(folder.glob(pattern)))
        logs = [path.parent for path in sorted(folder.glob('*/vis_data')) if path.parent.name != runner.timestamp]
        if not paths and not logs:
            return
        number = 1
        while (aside := folder / f'old_{number}').exists():
            number += 1
        aside.mkdir()
        for path in (*paths, *logs):
            path.rename(aside / path.name)
        if self.config is not None and folder == Path(self.cfg.work_dir):
            (aside / Path(self.cfg.filename or '').name).write_bytes(self.config)
        runner.logger.warning(f'The run that was in {folder} is in {aside} now')


def _folders(cfg: Config) -> list[Path]:
    """The work folder, and that of the checkpoints where it is another one on this machine."""
    out_dir = _hook(cfg).get('out_dir')
    there = [Path(out_dir, Path(cfg.work_dir).resolve().name)] if out_dir and '://' not in str(out_dir) else []
    return [Path(cfg.work_dir), *there]


def _checkpoints(cfg: Config) -> tuple[str, ...]:
    """Patterns of the names under which a run saves."""
    own = _hook(cfg).get('filename_tmpl')
    return (*CHECKPOINTS, re.sub(r'{.*?}', '*', own)) if own else CHECKPOINTS


def _hook(cfg: Config) -> dict:
    return (cfg.get('default_hooks') or {}).get('checkpoint') or {}


def _is_in(checkpoint: str, folders: list[Path]) -> bool:
    """Whether a checkpoint is of the run in these folders."""
    pointer = folders[0] / POINTER
    named = [Path(pointer.read_text().strip()).parent] if pointer.is_file() else []
    return Path(checkpoint).resolve().parent in [folder.resolve() for folder in (*folders, *named)]
