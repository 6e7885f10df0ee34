"""Searching the best values in ranges, by Optuna: each trial is a training in a process of its own.

WORK_DIR/search.json               what is searched
WORK_DIR/base/config.py            the whole config of the base
WORK_DIR/base/trial.json           what two iterations of it cost, and which metric values it has
WORK_DIR/search.db                 the trials, in a file of SQLite
WORK_DIR/search.lock               locked while a process searches
WORK_DIR/trials/NAME/              a trial: its whole config, and its run as in a study; the name comes from its values
WORK_DIR/best.py                   the best trial so far, as a config that inherits from the base
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from terminaltables import AsciiTable

from frdet.apis.ablation.reading import differences
from frdet.apis.ablation.space import Search, read_search
from frdet.apis.ablation.study import CONFIG, TRIAL
from frdet.apis.ablation.trial import check_metric, try_config
from frdet.apis.ablation.trials import Trials, shown
from frdet.config import dump_config, load_config
from frdet.config.inheriting import changes
from frdet.config.text import as_code
from frdet.errors import ConfigError
from frdet.files import write_file

SEARCH, STORAGE, LOCK, BEST = 'search.json', 'search.db', 'search.lock', 'best.py'
#: Finished trials from which their differences say how much each key matters.
ENOUGH = 10


def search(path: str | Path, work_dir: str | Path, train: str | Path, *, count: int, **settings: Any) -> Path | None:
    """Search the best values of a study file with ranges; see ``frdet.apis.ablation.space``.

    A search that was killed goes on: its trials resume from their checkpoints. With more ``trials`` it goes on, too.

    Args:
        path: the study file.
        work_dir: folder of the search.
        train: the path of tools/train.py.
        count: trainings at once.
        settings: instead of those in the file, and more ``options``.

    Returns:
        ``WORK_DIR/best.py``; None if no trial has finished.

    Raises:
        UserError: a package is missing, file or folder are wrong, another process searches in the folder, or the first
            trainings failed.
    """
    optuna = _import_optuna()
    plan, folder = read_search(path, **settings), Path(work_dir)
    _refuse_other(plan, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        write_file(folder / SEARCH, json.dumps(plan.settings(), indent=1).encode())
        tried = _try_base(plan, folder / 'base')
        check_metric(plan.metric, tried['metrics'], 'The base')
        study = optuna.create_study(
            storage=f'sqlite:///{(folder / STORAGE).resolve()}',
            study_name='search',
            direction='minimize' if plan.less_is_better else 'maximize',
            pruner=optuna.pruners.MedianPruner(),
            load_if_exists=True,
        )
        trials = Trials(optuna, study, plan, folder)
        done, hours = len(trials.these()), tried['hours']
        print(f'{done} of {plan.trials} trials are done; a whole one takes about {hours:.2f} hours', flush=True)
        trials.run(Path(train), count, lambda: write_best(trials))
        print(summary(trials))
        return write_best(trials)


def _import_optuna() -> Any:
    """The package Optuna, which logs warnings only.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError('A search needs the package Optuna, which is missing: pip install optuna') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _refuse_other(plan: Search, folder: Path) -> None:
    """Raise ConfigError if the folder holds something else than this search."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f'{folder} is a file: give another --work-dir')
    if not (folder / SEARCH).is_file():
        if {path.name for path in folder.iterdir()} - {LOCK}:
            raise ConfigError(f'{folder} holds files, and no search: give another --work-dir')
        return
    if not (folder / STORAGE).is_file():  # it stopped before the first trial, so it may be another one now
        return
    old, new = json.loads((folder / SEARCH).read_text()), plan.settings()
    changed = {key: (old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}
    if (base := folder / 'base' / CONFIG).is_file():
        changed.update(differences(load_config(base), plan.config({})))
    if changed:
        rows = '\n'.join(f'    {key}: {before} -> {after}' for key, (before, after) in changed.items())
        raise ConfigError(f'{folder} holds another search:\n{rows}\nGive another --work-dir, or remove {folder}')


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a search, which a process that was killed does not keep."""
    with open(folder / LOCK, 'a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f'Another process searches in {folder}: wait for its end, or end it') from None
        yield


def _try_base(plan: Search, folder: Path) -> dict[str, Any]:
    """What two iterations of the base cost. It is not tried again while its config is the same."""
    config, tried, text = folder / CONFIG, folder / TRIAL, dump_config(plan.config({})).encode()
    folder.mkdir(exist_ok=True)
    if not config.is_file() or config.read_bytes() != text:
        tried.unlink(missing_ok=True)
        write_file(config, text)
    try:
        found: dict[str, Any] = json.loads(tried.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        print('Training two iterations of the base', flush=True)
        return try_config(config, tried, 'The base')
    return found


def write_best(trials: Trials) -> Path | None:
    """Write the best trial so far as a config that inherits from the base; None if no trial has finished.

    It has the values that were searched, and none of the ``options``, which often shorten the schedule of a search.
    """
    if not (ranked := trials.ranked()):
        return None
    best, plan, path = ranked[0], trials.plan, trials.folder / BEST
    wanted = load_config(plan.base, trials.values(best)).to_dict()
    base = os.path.relpath(plan.base.resolve(), path.parent.resolve())
    lines = [
        f'"""The best of {_counted(trials)}: {plan.metric} {best.value:.4g} in trial {best.number}.',
        *(f'All trials had {key}={value!r}.' for key, value in plan.options.items()),
        f'\npython tools/train.py {path}\n"""\n',
        f'_base_ = {base!r}\n',
    ]
    for key, value in changes(load_config(plan.base).to_dict(), wanted).items():
        lines.append(f'{key} = {as_code(value, before=len(key) + 3)}')
    write_file(path, ('\n'.join(lines) + '\n').encode())
    return path


def summary(trials: Trials) -> str:
    """The best trials, and how much each key matters."""
    ends = {'COMPLETE': 'finished', 'PRUNED': 'pruned', 'FAIL': 'failed'}
    counts = ', '.join(f'{len(trials.these(state))} {word}' for state, word in ends.items())
    finished, plan, best = trials.ranked(), trials.plan, trials.folder / BEST
    if not finished:
        return f'{_counted(trials)}: {counts}. So there is no {BEST}'
    rows = [['trial', plan.metric, *trials.names.values()]]
    for trial in finished[:5]:
        rows.append([str(trial.number), shown(trial.value), *map(shown, trials.values(trial).values())])
    lines = [f'{_counted(trials)}: {counts}. The best:', AsciiTable(rows).table]
    if len(finished) >= ENOUGH and len(trials.names) > 1:
        judge = trials.optuna.importance.PedAnovaImportanceEvaluator()
        shares = trials.optuna.importance.get_param_importances(trials.study, evaluator=judge)
        listed = ', '.join(f'{trials.names[key]} {share:.0%}' for key, share in shares.items())
        lines.append(f'How much each key decides whether a trial is among the best: {listed}')
    lines.append(
        f'{best} is trial {finished[0].number}. The best of many runs owes some of its value to chance: compare it '
        f'with the base on several seeds\n    python tools/ablate.py {os.path.normpath(plan.base)} {best}'
    )
    return '\n'.join(lines)


def _counted(trials: Trials) -> str:
    ended = len(trials.these())
    return f'{ended} trial{"s" * (ended != 1)}'
