"""Protecting the run in a work dir: another run starts there only after the first one is moved aside."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.checkpoints.fit import few
from frdet.errors import ConfigError
from frdet.files import write_file

POINTER = 'last_checkpoint'
CHECKPOINTS = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth', 'non_finite_*.pth')  # NonFiniteHook writes the last ones
TABLE = 'results.csv'
FINISHED = 'finished.json'
#: The files of a run's report in the work dir.
REPORT = (
    FINISHED,
    TABLE,
    *(f'{plot}.png' for plot in ('curves', 'labels', 'precision_recall', 'classes', 'confusion_matrix', 'errors')),
    'report.html',
)
LOG = '*/vis_data/scalars.json'
#: Work dirs in which this process has trained.
_trained: set[Path] = set()


def is_run_in_the_way(cfg: Config, *, overwrite: bool) -> bool:
    """Return whether the work dir holds a run that must be moved aside before training begins there.

    A run of this same process may be moved without ``overwrite``, as when a notebook's cell is run again. A run that is
    resumed from one of its own checkpoints is not in the way.

    ``cfg`` has ``work_dir``, and ``load_from`` and ``resume`` as training will use them.

    Raises:
        ConfigError: there is such a run, and the user did not ask to move it aside.
    """
    folders, checkpoints = _saved(cfg)
    patterns = (*checkpoints, TABLE, LOG)
    paths = [(folder, path) for folder in folders for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not paths or overwrite:
        return bool(paths)
    if cfg.get('resume'):
        pointer = folders[0] / POINTER
        named = [Path(pointer.read_text().strip()).parent] if pointer.is_file() else []
        of_this_run = [folder.resolve() for folder in (*folders, *named)]
        if cfg.get('load_from') is None or Path(cfg.load_from).resolve().parent in of_this_run:
            return False
    if folders[0].resolve() in _trained:
        return True
    names = list(dict.fromkeys(str(path.relative_to(folder)) for folder, path in paths))
    raise ConfigError(
        f'{cfg.work_dir} holds a run already ({few(names)}), and a second one would mix with it.\n'
        'Go on with that run (--resume, in Python resume=True), move it aside (--overwrite, in Python overwrite=True), '
        'or give another --work-dir'
    )


class WorkFolderHook(Hook):
    """Moves the earlier run in the work dir aside, and writes ``finished.json`` when a training has come to its end.

    The checkpoints, logs, table and plots of the earlier run are moved to ``old_1`` in the work dir, or ``old_2`` and
    so on; other files stay. This happens right before the first iteration, after data and weights are loaded, so a
    mistake in the config moves nothing. ``cfg`` is the config of the new run.
    """

    priority = 'LOW'  # after the hooks that check the setup, before the hooks that write files

    def __init__(self, cfg: Config, *, move: bool):
        self.cfg = cfg
        self.move = move
        # When the Runner is built, its config overwrites the earlier run's config.
        config = Path(cfg.work_dir, Path(cfg.filename or '').name)
        self.config = config.read_bytes() if move and config.is_file() else None

    def before_train(self, runner: Runner) -> None:
        """Move the earlier run in the first process, while the other processes wait."""
        if self.move:
            folders, checkpoints = _saved(self.cfg)
            for folder in folders if is_main_process() else ():
                self._move(folder, (*checkpoints, *REPORT), runner)
            barrier()
        _trained.add(Path(runner.work_dir).resolve())
        if is_main_process():
            Path(runner.work_dir, FINISHED).unlink(missing_ok=True)  # of a shorter run that is resumed

    def after_train(self, runner: Runner) -> None:
        """Note that nothing is left to do: a folder with checkpoints may hold a run that was killed."""
        if is_main_process():
            write_file(Path(runner.work_dir, FINISHED), json.dumps({'iter': runner.iter}).encode())

    def _move(self, folder: Path, patterns: Sequence[str], runner: Runner) -> None:
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


def _saved(cfg: Config) -> tuple[list[Path], list[str]]:
    """Return the work dir, with the folder of the checkpoints if it is another one here, and the checkpoints' names."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    folders, names = [Path(cfg.work_dir)], [POINTER, *CHECKPOINTS]
    if (out_dir := hook.get('out_dir')) and '://' not in str(out_dir):
        folders.append(Path(out_dir, folders[0].resolve().name))
    if own := hook.get('filename_tmpl'):
        names.append(re.sub(r'{.*?}', '*', own))
    return folders, names
