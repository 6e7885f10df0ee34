"""What a finished run of a study has reached. What takes long is kept beside its work dir."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import frdet
from frdet.apis.ablation.study import Job, Study
from frdet.datasets.coco import read_coco
from frdet.errors import DataError, UserError
from frdet.evaluation.coco_metric import MAX_DETS
from frdet.evaluation.numbering import numbered, numbers_of
from frdet.evaluation.results import read_results
from frdet.evaluation.truth import Source, Truth
from frdet.files import write_file
from frdet.insight import store
from frdet.insight.bootstrap import SAMPLED, draw, sampled_ap
from frdet.insight.curves import class_table
from frdet.insight.report.run import Run, read_run


@dataclass(frozen=True)
class Validation:
    """What the detections of the last validation say.

    Attributes:
        classes: name of a class -> AP; a class without an object has none.
        errors: kind of error -> AP that it costs.
        sampled: the study's metric value on samples of the validation images, which are the same for all runs on the
            same images; the first sample is all images. Empty if it cannot be sampled.
        doubts: sentences about what is missing.
    """

    classes: Mapping[str, float]
    errors: Mapping[str, float]
    sampled: Sequence[float]
    doubts: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """What a finished run has reached.

    Attributes:
        metrics: end of the name of a metric value ('bbox_mAP_s') -> its value in the last validation.
        value: the metric value that the study compares.
        validation: what its detections say.
        tested: the ids of the validation images and the names of the classes.
        times: seconds of the logged iterations.
        hours: of all iterations.
        memory: MB; None if it was not logged.
    """

    metrics: Mapping[str, float]
    value: float
    validation: Validation
    tested: tuple
    times: Sequence[float]
    hours: float
    memory: float | None


def read_outcome(study: Study, job: Job) -> Outcome:
    """Read a finished run.

    Raises:
        DataError: it has no value of the study's metric in its last validation.
        ConfigError: its folder holds no log.
    """
    run = read_run(job.work_dir)
    last = {name: value for name, value in (run.last or {}).items() if value is not None}
    if study.metric not in last:
        raise DataError(f'is finished, but its last validation has no value of {study.metric}')
    (_, times), (_, memory) = (run.log.series(name) for name in ('time', 'memory'))
    return Outcome(
        metrics={name.rpartition('/')[2]: value for name, value in reversed(last.items())},  # of equal ends the first
        value=last[study.metric],
        validation=_read_validation(study, job, run, last[study.metric]),
        tested=(run.facts.img_ids, run.facts.classes) if run.facts else (),
        times=times.tolist(),
        hours=run.log.seconds / 3600,
        memory=float(memory.max()) if len(memory) else None,
    )


def _read_validation(study: Study, job: Job, run: Run, value: float) -> Validation:
    """Analyse the last validation, or read the analysis if it was made of the same files."""
    facts = store.load_facts(run.validated) if run.validated else None
    used = [run.validated / name for name in (store.DETECTIONS, store.EVALUATION)] if run.validated else []
    used += [Path(facts.ann_file)] if facts and facts.ann_file else []
    made_of = [frdet.__version__, study.metric, value, study.bootstrap, *(_stamp(file) for file in used)]
    try:
        content = json.loads(job.validation.read_text(encoding='utf-8'))
        if content['made_of'] == made_of:
            return Validation(**content['found'])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # it is made for the first time, or anew
    found = _analyse(study, run, facts, value)
    with contextlib.suppress(OSError):  # a study of somebody else may be read only
        write_file(job.validation, json.dumps({'made_of': made_of, 'found': asdict(found)}).encode())
    return found


def _stamp(path: Path) -> list[str | int]:
    try:
        status = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), status.st_size, status.st_mtime_ns]


def _analyse(study: Study, run: Run, facts: store.RunFacts | None, value: float) -> Validation:
    analysis, evaluation = run.analysis, run.evaluation
    classes: dict[str, float] = {}
    if analysis is not None and evaluation is not None:
        names, ap = analysis.results.names_of(evaluation.cat_ids), class_table(evaluation)[:, 0]
        classes = {name: one for name, one in zip(names, ap.tolist(), strict=True) if np.isfinite(one)}
    sampled: list[float] = []
    doubts = list(run.missing)
    if analysis is not None and facts is not None and run.validated is not None and study.bootstrap:
        try:
            sampled = _sample(study, run, facts, run.validated / store.DETECTIONS, value)
        except UserError as error:
            doubts.append(f'no interval over images: {error}')
    return Validation(classes, analysis.errors.cost if analysis else {}, sampled, doubts)


def _sample(study: Study, run: Run, facts: store.RunFacts, detections: Path, value: float) -> list[float]:
    """The metric value of all images and of samples of them; empty if it is none of COCO's."""
    sampled = SAMPLED.get(study.metric.rpartition('/')[2])
    if sampled is None or facts.ann_file is None:
        return []
    truth = Truth([Source(facts.ann_file, read_coco(facts.ann_file), None)])
    known = truth.sources[0].content.categories
    classes = [name for name in facts.classes or known if name in known]
    every = (truth.position(img_id, None) for img_id in facts.img_ids or ())
    positions = sorted({position for position in every if position is not None})
    found, _ = read_results(detections, truth, classes, positions)
    by_position = dict(zip(positions, found, strict=True))
    task = numbered(truth, by_position, classes, numbers_of(truth.category_ids(classes)), _max_dets(run))
    area, iou = sampled
    values = sampled_ap(task, draw(len(task.tested), study.bootstrap), area=area, iou=iou)
    if not abs(values[0] - value) < 1e-6:
        raise DataError(
            f'the detections in {detections} give {values[0]:.4f} of {study.metric}, and the log says {value:.4f}: '
            'were files of the run or its annotations changed?'
        )
    return [float(one) for one in values]


def _max_dets(run: Run) -> Sequence[int]:
    """The counts of detections of the run's CocoMetric."""
    found = run.config.get('val_evaluator')
    metrics = found if isinstance(found, (list, tuple)) else [found]
    own = next((one for one in metrics if isinstance(one, dict) and one.get('type') == 'CocoMetric'), {})
    return own.get('max_dets') or MAX_DETS
