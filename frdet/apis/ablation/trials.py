"""The trials of a search: Optuna draws their values and stores what they gave, processes of this machine train them."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from frdet.apis.ablation import running
from frdet.apis.ablation.reading import short_names
from frdet.apis.ablation.space import Search
from frdet.apis.ablation.study import Job
from frdet.config import dump_config
from frdet.config.text import as_code
from frdet.engine.hooks.work_folder import LOG
from frdet.errors import ConfigError, UserError
from frdet.evaluation.coco_metric import is_defined
from frdet.files import write_file

#: Failures in a row that end a search in which no training has succeeded.
FAILURES = 3


@dataclass
class _Run:
    """The training of a trial that has not ended.

    Attributes:
        trial: of Optuna.
        error: why the values of the trial have no config; '' if they have one.
        slot: place among the processes; None before this process has started it.
        reported: steps of the validations that Optuna knows.
        is_pruned: Optuna gives it up.
        is_told: its process got the signal to end.
    """

    trial: Any
    job: Job
    error: str = ''
    slot: int | None = None
    reported: set[int] = field(default_factory=set)
    is_pruned: bool = False
    is_told: bool = False


def validations(work_dir: Path, metric: str) -> dict[int, float | None]:
    """Step -> metric value of the validations that a run has logged so far; None for a value that measures nothing."""
    found: dict[int, float | None] = {}
    for path in sorted(work_dir.glob(LOG)):
        for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
            with contextlib.suppress(ValueError):  # the run was killed while it wrote this line, or it writes it now
                record = json.loads(line)
                if metric in record:
                    found[record['step']] = record[metric] if is_defined(metric, record[metric]) else None
    return found


class Trials:
    """The trials of a search.

    Args:
        optuna: the package.
        study: of Optuna.
        plan: what is searched.
        folder: of the search.
    """

    def __init__(self, optuna: Any, study: Any, plan: Search, folder: Path):
        self.optuna = optuna
        self.study = study
        self.plan = plan
        self.folder = folder
        self.failures = 0
        self.names = dict(zip(plan.space, short_names(list(plan.space)), strict=True))

    def these(self, *states: str) -> list[Any]:
        """The trials of Optuna in the given states; without any, those that have ended."""
        kinds = self.optuna.trial.TrialState
        return self.study.get_trials(states=[kinds[name] for name in states or ('COMPLETE', 'PRUNED', 'FAIL')])

    def ranked(self) -> list[Any]:
        """The finished trials, the best one first."""
        return sorted(self.these('COMPLETE'), key=lambda trial: trial.value, reverse=not self.plan.less_is_better)

    def values(self, trial: Any) -> dict[str, Any]:
        """Key path -> value. Optuna draws the values of a new trial now."""
        return {key: one.suggest(trial, key) for key, one in self.plan.space.items()}

    def run(self, train: Path, count: int, update: Callable[[], object]) -> None:
        """Train until all trials have ended.

        Args:
            train: the path of tools/train.py.
            count: trainings at once.
            update: is called after each trial.

        Raises:
            ConfigError: no training succeeds.
        """
        processes: dict[int, Popen] = {}
        environments = running.environments(count)
        # A process that was killed left these.
        left = self.these('RUNNING')
        active = [
            self._begin(self.optuna.trial.Trial(self.study, one._trial_id), one.intermediate_values) for one in left
        ]
        done = len(self.these())
        with running.ending(processes):
            while True:
                while len(active) < count and done + len(active) < self.plan.trials:
                    active.append(self._begin(self.study.ask()))
                if not active:
                    return
                for one in list(active):
                    self._report(one)
                    if (code := self._advance(one, train, processes, environments)) is not None:
                        active.remove(one)
                        done += 1
                        self._tell(one, code)
                        update()
                time.sleep(running.POLL if active else 0)

    def _begin(self, trial: Any, reported: Iterable[int] = ()) -> _Run:
        """Draw the values of a trial and write its config, if that has not happened before."""
        # The same values as in a search that was not killed, and not those of its first trials again.
        self.study.sampler = self.optuna.samplers.TPESampler(seed=self.plan.seed + trial.number)
        values = self.values(trial)
        name = hashlib.sha256(as_code(values).encode()).hexdigest()[:10]
        job = Job(f'trials/{name}', self.plan.seed, self.folder / 'trials' / name / f'seed_{self.plan.seed}')
        job.config.parent.mkdir(parents=True, exist_ok=True)
        one = _Run(trial, job, reported=set(reported), is_pruned=trial.should_prune())
        try:
            write_file(job.config, dump_config(self.plan.config(values)).encode())
        except UserError as error:  # each of the values is right, but not all of them together
            one.error = str(error)
        return one

    def _report(self, one: _Run) -> None:
        """Tell Optuna of new validations, and ask it whether to go on."""
        for step, value in validations(one.job.work_dir, self.plan.metric).items():
            if step not in one.reported and value is not None:
                one.trial.report(value, step)
                one.is_pruned = one.is_pruned or one.trial.should_prune()
            one.reported.add(step)

    def _advance(
        self, one: _Run, train: Path, processes: dict[int, Popen], environments: Sequence[Mapping[str, str]]
    ) -> int | None:
        """Start or stop the training of a trial. Returns its exit code if it has ended."""
        if one.error:
            return 1
        if one.slot is None:
            if one.job.is_finished or (one.is_pruned and not one.job.is_running):
                return 0
            free = [slot for slot in range(len(environments)) if slot not in processes]
            if free:  # `start` gives None while a process trains it that a killed search has left
                process = running.start(one.job, running.train_command(one.job, train), environments[free[0]])
                if process is not None:
                    one.slot = free[0]
                    processes[one.slot] = process
            return None
        if one.is_pruned and not one.is_told:
            processes[one.slot].terminate()
            one.is_told = True
        code = processes[one.slot].poll()
        if code is not None:
            del processes[one.slot]
        return code

    def _tell(self, one: _Run, code: int) -> None:
        """Tell Optuna how a trial has ended, and print it."""
        kinds, number, metric = self.optuna.trial.TrialState, one.trial.number, self.plan.metric
        found = validations(one.job.work_dir, metric)
        last = found[max(found)] if found else None
        words = [f'{self.names[key]}={shown(value)}' for key, value in self.values(one.trial).items()]
        head = f'trial {number}: {", ".join(words)}'
        value = f'{metric} {"has no value" if last is None else shown(last)}'
        if one.job.is_finished and last is not None:
            self.study.tell(number, last)
            self.failures = 0
            print(f'{head}: {value}', flush=True)
        elif one.is_pruned:
            self.study.tell(number, state=kinds.PRUNED)
            print(f'{head}: pruned after {len(found)} validation{"s" * (len(found) != 1)}, {value}', flush=True)
        else:
            self.study.tell(number, state=kinds.FAIL)
            self.failures += 1
            why = f'{value} at its end' if one.job.is_finished else f'failed with exit code {code}'
            last_words = one.error.splitlines() or [f'the last lines of {one.job.output}:', *one.job.last_words()]
            print('\n    '.join([f'{head}: {why}', *last_words]), flush=True)
            if self.failures >= FAILURES and not self.these('COMPLETE', 'PRUNED'):
                raise ConfigError(
                    f'{self.failures} trainings failed one after the other, and none has succeeded: read '
                    f'{one.job.output}, mend it, and start the same command again'
                )


def shown(value: Any) -> str:
    """A value in a line of text: a float with four digits."""
    return f'{value:.4g}' if isinstance(value, float) else str(value)
