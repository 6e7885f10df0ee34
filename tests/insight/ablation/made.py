"""Studies whose runs and conclusions are written by hand."""

import json
import statistics

from frdet.apis.ablation.study import Study
from frdet.engine.hooks.work_folder import FINISHED
from frdet.insight.ablation.conclusions import Conclusion, Difference, Interval
from tests.insight.report.made import FIRST, scalars

T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t of a two-sided interval, by the number of pairs


def make_study(root, variants=('base', 'giou'), seeds=(0, 1, 2), *, metric='coco/bbox_mAP', **options):
    """The folder of a study in which no run has begun."""
    study = Study(root / 'study', tuple(variants), tuple(seeds), metric, **options)
    for number, variant in enumerate(variants):
        study.folder(variant).mkdir(parents=True)
        (study.folder(variant) / 'config.py').write_text(f"lr = {0.01 * (number + 1)}\nwork_dir = '{number}'\n")
        trial = {'iterations': 40, 'seconds': 0.5, 'validations': 4, 'input_size': [480, 640], 'hours': 0.01}
        (study.folder(variant) / 'trial.json').write_text(json.dumps(trial))
    study.save()
    return study


def make_run(study, variant, seed, value=None, *, reached=40):
    """A run: with ``value``, its last metric value, it is finished, else it stopped at iteration ``reached``."""
    job = study.job(variant, seed)
    last, records = 0.5 if value is None else value, []
    for at in range(10, reached + 1, 10):
        loss = 40 / at + 0.1 * seed
        records += [dict(lr=0.01, loss=loss, time=0.25, iter=at), {study.metric: last * at / 40, 'step': at}]
    scalars(job.work_dir / FIRST, records)
    job.output.write_text('Reading\n\nRuntimeError: no <memory>\n' if value is None else 'Done\n')
    if value is not None:
        (job.work_dir / FINISHED).write_text('{"iter": 40}')
    return job


def difference(values, *, q=None):
    """Of the pairs; their seeds are 0, 1, ..."""
    mean, count = statistics.fmean(values), len(values)
    spread = statistics.stdev(values) if count > 1 else float('nan')
    half = T95[count] * spread / count**0.5 if count > 1 else None
    interval = Interval(mean - half, mean + half) if half is not None else None
    return Difference(dict(enumerate(values)), mean, spread, interval, q and q / 2, q, None)


def conclude(study, values, **more):
    """Conclusions from variant -> seed -> metric value; ``more`` are other fields of the variants."""
    base, found = values[study.base], []
    for variant, of in values.items():
        pairs = [of[seed] - base[seed] for seed in of if seed in base]
        told = difference(pairs) if pairs and variant != study.base else None
        verdict = '' if variant == study.base else 'too few runs'
        if told is not None:
            excludes = told.interval is not None and (told.interval.low > 0 or told.interval.high < 0)
            better = (told.mean > 0) != study.less_is_better
            verdict = ('better' if better else 'worse') if excludes else 'not told apart yet: 4 more seeds'
        mean = statistics.fmean(of.values()) if of else float('nan')
        spread = statistics.stdev(of.values()) if len(of) > 1 else float('nan')
        fields = {} if variant == study.base else more
        found.append(Conclusion(variant, of, mean, spread, difference=told, verdict=verdict, **fields))
    return found
