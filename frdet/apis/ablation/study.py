"""A planned study and its folder.

WORK_DIR/study.json                      what is compared, by which metric, with which seeds
WORK_DIR/VARIANT/config.py               the whole config of a variant; the base is the first variant
WORK_DIR/VARIANT/trial.json              what two iterations of it cost
WORK_DIR/VARIANT/seed_0/                 the work dir of one run
WORK_DIR/VARIANT/seed_0.out              what the run printed
WORK_DIR/VARIANT/seed_0.validation.json  what its last detections say, for tables and page made again
WORK_DIR/VARIANT/seed_0.lock             locked while a process trains the run
"""

import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from frdet.engine.hooks.work_folder import FINISHED
from frdet.errors import ConfigError
from frdet.files import write_file

STUDY, CONFIG, TRIAL = 'study.json', 'config.py', 'trial.json'


class Job(NamedTuple):
    """One training: a variant with a seed."""

    variant: str
    seed: int
    work_dir: Path

    @property
    def name(self) -> str:
        return f'{self.variant}/seed_{self.seed}'

    @property
    def config(self) -> Path:
        return self.work_dir.parent / CONFIG

    @property
    def output(self) -> Path:
        """The file of what the training printed."""
        return self.work_dir.with_name(f'{self.work_dir.name}.out')

    @property
    def validation(self) -> Path:
        """The file of the analysis of its last validation."""
        return self.work_dir.with_name(f'{self.work_dir.name}.validation.json')

    @property
    def lock(self) -> Path:
        """The file that a process locks while it trains."""
        return self.work_dir.with_name(f'{self.work_dir.name}.lock')

    @property
    def is_finished(self) -> bool:
        return (self.work_dir / FINISHED).is_file()

    @property
    def length(self) -> int:
        """The number of iterations of a finished training; 0 if it is not finished."""
        try:
            return int(json.loads((self.work_dir / FINISHED).read_text(encoding='utf-8'))['iter'])
        except (OSError, ValueError, KeyError):
            return 0

    @property
    def is_running(self) -> bool:
        """Whether a living process of this machine holds the lock."""
        try:
            with open(self.lock) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def state(self) -> str:
        """'finished', 'running', 'stopped' (it has begun, and nobody trains it) or 'waiting'."""
        if self.is_finished:
            return 'finished'
        if self.is_running:
            return 'running'
        return 'stopped' if self.output.is_file() or self.work_dir.is_dir() else 'waiting'

    def last_words(self, count: int = 3) -> list[str]:
        """The last lines that the training printed."""
        try:
            lines = self.output.read_text(encoding='utf-8', errors='replace').splitlines()
        except OSError:
            return []
        return [line.rstrip() for line in lines if line.strip()][-count:]


@dataclass(frozen=True)
class Study:
    """A study as it was planned.

    Attributes:
        work_dir: its folder.
        variants: names of the variants, which are also names of folders; the base is the first one.
        seeds: of the runs of each variant, the same for all. Equal seeds are a pair: they see the same images in the
            same order with the same augmentation.
        metric: the name of the metric value that is compared, as in the log of a validation: ``coco/bbox_mAP``.
        less_is_better: whether a smaller metric value is a better one.
        bootstrap: how many times the validation images are drawn for an interval over images; 0 for none.
    """

    work_dir: Path
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: str = 'coco/bbox_mAP'
    less_is_better: bool = False
    bootstrap: int = 500

    @property
    def base(self) -> str:
        return self.variants[0]

    def folder(self, variant: str) -> Path:
        return self.work_dir / variant

    def job(self, variant: str, seed: int) -> Job:
        return Job(variant, seed, self.folder(variant) / f'seed_{seed}')

    def jobs(self) -> Iterator[Job]:
        """All runs, seed by seed, so that pairs are complete early."""
        return (self.job(variant, seed) for seed in self.seeds for variant in self.variants)

    def jobs_of(self, variant: str) -> list[Job]:
        return [self.job(variant, seed) for seed in self.seeds]

    def trial(self, variant: str) -> dict[str, Any]:
        """What ``frdet.apis.ablation.trial`` measured of a variant; empty if it was not tried."""
        try:
            content: dict[str, Any] = json.loads((self.folder(variant) / TRIAL).read_text(encoding='utf-8'))
        except (OSError, ValueError):
            return {}
        return content

    def save(self) -> None:
        """Write ``study.json``."""
        content = {key: value for key, value in asdict(self).items() if key != 'work_dir'}
        write_file(self.work_dir / STUDY, json.dumps(content, indent=1).encode())


def load_study(work_dir: str | Path) -> Study:
    """Read the study of a folder.

    Raises:
        ConfigError: the folder holds no study.
    """
    path = Path(work_dir, STUDY)
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        variants, seeds = (tuple(content.pop(key)) for key in ('variants', 'seeds'))
        return Study(Path(work_dir), variants, seeds, **content)
    except OSError:
        raise ConfigError(f'{work_dir} holds no {STUDY}: give the work dir of tools/ablate.py') from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f'{path} cannot be read ({error}): was it changed by hand?') from None
