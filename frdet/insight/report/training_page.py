"""The page of one training."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frdet.insight.curves import COLUMNS, class_table
from frdet.insight.errors import KINDS, kind_texts
from frdet.insight.page import Page, Section
from frdet.insight.report import pictures, plots
from frdet.insight.report.label_errors import FILE, Suspects, find_suspects, write_suspects
from frdet.insight.report.label_errors_page import add_suspects
from frdet.insight.report.run import Analysis, Run, read_run
from frdet.insight.report.traces import add_traces
from frdet.insight.store import BATCH
from frdet.progress import track

TIDE = 'Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020'
MEANINGS = {
    'bbox_mAP': 'AP, mean over IoU 0.50, 0.55, ... 0.95',
    'bbox_mAP_50': 'AP at IoU 0.50',
    'bbox_mAP_75': 'AP at IoU 0.75',
    'bbox_mAP_s': 'AP of objects below 32x32 pixels',
    'bbox_mAP_m': 'AP of objects from 32x32 to 96x96 pixels',
    'bbox_mAP_l': 'AP of objects above 96x96 pixels',
    'bbox_AR@1': 'recall with 1 detection an image',
    'bbox_AR@10': 'recall with 10 detections an image',
    'bbox_AR@100': 'recall with 100 detections an image',
    'bbox_AR_s': 'recall of objects below 32x32 pixels',
    'bbox_AR_m': 'recall of objects from 32x32 to 96x96 pixels',
    'bbox_AR_l': 'recall of objects above 96x96 pixels',
}
CONFUSIONS = 15  # rows of the table


def write_page(work_dir: str | Path, out: str | Path) -> Path:
    """Write the page of the training in ``work_dir``, and beside it the list of likely label errors if there is a
    validation to find them by.

    Raises:
        ConfigError: it is no work dir of a training, or ``out`` cannot be written.
    """
    run = read_run(work_dir)
    run.note_its_end()
    page = Page(f'Training of {run.work_dir.resolve().name}', facts=_facts(run), warnings=run.missing)
    suspects = find_suspects(run)
    detections = partial(_detections, suspects=suspects)
    traces = partial(add_traces, folder=Path(out).parent)
    parts: tuple[Callable[[Page, Run], None], ...] = (
        _metrics, _curves, _precision, detections, traces, _batches, _labels, _settings,
    )  # fmt: skip
    for add in track(parts, 'Drawing', delay=0):
        add(page, run)
    page.write(out)
    if run.analysis is not None and suspects is not None:
        write_suspects(run.analysis, suspects, Path(out).with_name(FILE))
    return Path(out)


def _facts(run: Run) -> dict[str, Any]:
    log, best = run.log, run.best
    facts: dict[str, Any] = {'iterations': log.train[-1]['iter'] if log.train else 0}
    if log.by_epoch and (records := log.train or log.val):
        facts['epochs'] = max(record['epoch'] for record in records)
    if best is not None:
        facts['best AP'] = run.metric(best, 'bbox_mAP')
    facts['time of iterations'] = duration(log.seconds)
    if len(log.folders) > 1:
        facts['pieces'] = len(log.folders)
    return facts


def duration(seconds: float) -> str:
    """A duration as text: 40 s, 3 min 20 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f'{minutes // 60} h {minutes % 60} min'
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'


def _meaning(metric: str) -> str:
    meaning = MEANINGS.get(metric.replace('segm_', 'bbox_'), '')
    return f'{meaning}, by the IoU of masks' if meaning and metric.startswith('segm_') else meaning


def _metrics(page: Page, run: Run) -> None:
    if not run.log.val:
        return
    last = run.log.val[-1]
    best = run.best or last
    section = page.section(
        'Metrics',
        'Average precision (AP) and recall (AR) as COCO defines them: from 0 to 1, means over the classes. A dash '
        'stands where there is no object of that size.',
    )
    head = ['metric', f'best AP, iteration {best["iter"]:,}', f'last, iteration {last["iter"]:,}', 'what it is']
    names = [name for name in last if name not in ('iter', 'epoch')]
    rows = [[name, best.get(name), last[name], _meaning(name.split('/')[-1])] for name in names]
    section.table(head, rows, caption='Validation')


def _curves(page: Page, run: Run) -> None:
    if not run.log.train and not run.log.val:
        return
    section = page.section('Curves', 'Logged numbers over the iterations, with all pieces of a resumed training.')
    section.plot(plots.curves(run), 'Losses, learning rate, average precision and time')
    if len(run.log.series('memory')[0]):
        section.plot(plots.memory(run.log), 'Memory')
    else:
        section.text('Memory is logged on GPUs only.')
    head, rows = run.log.table()
    section.table(head, rows, caption='Means of the logged numbers, with the validations')


def _precision(page: Page, run: Run) -> None:
    if run.evaluation is None and run.analysis is None:
        return
    section = page.section(
        'Precision and recall',
        "Left: COCO's precision at 101 recalls. Right: all detections from a score on; F1 is best at the dashed line.",
    )
    section.plot(plots.precision_recall(run.evaluation, run.analysis), 'Last validation')


def _detections(page: Page, run: Run, suspects: Suspects | None) -> None:
    if run.analysis is not None and suspects is not None:
        _classes(page, run, run.analysis)
        _confusion(page, run.analysis)
        _errors(page, run.analysis)
        _worst(page, run, run.analysis)
        add_suspects(page, run, run.analysis, suspects)
        _samples(page, run, run.analysis)


def _classes(page: Page, run: Run, analysis: Analysis) -> None:
    section = page.section(
        'Classes',
        'Average precision of each class, for all objects and by size. F1, precision and recall at IoU 0.5 are for '
        'detections from the score on where F1 of the class is best.',
    )
    results = analysis.results
    if run.evaluation is not None:
        plot = plots.classes(run.evaluation, results.names_of(run.evaluation.cat_ids))
        section.plot(plot, 'AP of each class and by size, last validation')
    objects = np.bincount(results.truth.label[~results.truth.crowd], minlength=len(results.classes)).tolist()
    by_category = dict(zip(run.evaluation.cat_ids, class_table(run.evaluation), strict=True)) if run.evaluation else {}
    rows = []
    for name, cat_id, count, f1 in zip(results.classes, results.cat_ids, objects, analysis.class_f1, strict=True):
        there = len(f1.scores) and count
        at_best = [values[f1.best] for values in (f1.f1, f1.precision, f1.recall, f1.scores)] if there else [None] * 4
        precisions = by_category.get(cat_id, np.full(len(COLUMNS), np.nan))
        rows.append([name, count, *(None if np.isnan(value) else float(value) for value in precisions), *at_best])
    rows.sort(key=lambda row: -1.0 if row[2] is None else row[2], reverse=True)
    head = ['class', 'objects', *COLUMNS, 'best F1', 'precision', 'recall', 'from score']
    section.table(head, rows, caption='Classes, the best first')


def _confusion(page: Page, analysis: Analysis) -> None:
    section = page.section(
        'Confusion',
        f'Detections that score {analysis.score:.2f} or more, where F1 is best, paired with objects by IoU of 0.5 or '
        'more whatever their classes. Shades are shares of a row. Last column: missed. Last row: without an object.',
    )
    names, matrix = [*analysis.results.classes, 'background'], analysis.confusion
    section.plot(plots.confusion(matrix, analysis.results.classes), 'Annotated class by found class')
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind='stable')[:CONFUSIONS]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    rows = [[names[row], names[column], int(wrong[row, column])] for row, column in pairs if wrong[row, column]]
    section.table(['annotated', 'found', 'times'], rows, caption='The most frequent confusions')


def _errors(page: Page, analysis: Analysis) -> None:
    section = page.section(
        'Errors',
        f'Every detection counts here, whatever its score. AP at IoU 0.5 is {analysis.errors.ap:.3f}; the cost of a '
        'kind is how much it would rise if only the errors of that kind were corrected.',
        source=TIDE,
    )
    errors = analysis.errors
    section.plot(plots.error_costs(errors.cost), 'Cost of each kind of error')
    rows = [[kind, errors.counts[kind], round(errors.cost[kind], 4), kind_texts()[kind]] for kind in KINDS]
    section.table(['error', 'times', 'AP lost', 'a detection that'], rows, caption='Kinds of errors')


def _worst(page: Page, run: Run, analysis: Analysis) -> None:
    section = page.section(
        'Worst images',
        f'The images with the most errors from score {analysis.score:.2f} on, where F1 is best. An image disappears '
        'while all its boxes are switched off.',
        off={'error': [pictures.RIGHT, pictures.ANNOTATED]},
        legend='error',
    )
    pictures.add_worst(section, run, analysis)


def _samples(page: Page, run: Run, analysis: Analysis) -> None:
    section = page.section('Detections', f'Images spread over the validation; detections from {analysis.score:.2f} on.')
    section.gallery(pictures.samples(run, analysis), caption='Annotated left, found right')


def _batches(page: Page, run: Run) -> None:
    batches = sorted(path for folder in run.log.folders[:1] for path in folder.glob(BATCH.format('*')))
    if not batches:
        return
    section = page.section('Training batches', 'What the model was given first, after augmentation.')
    for number, path in enumerate(batches, start=1):
        section.picture(np.asarray(Image.open(path).convert('RGB')), f'Batch {number}')


def _labels(page: Page, run: Run) -> None:
    if run.facts is None or not run.facts.labels:
        return
    section = page.section('Labels', 'Boxes by class, by size and by image; crowds are left out.')
    for name, statistics in run.facts.labels.items():
        show_labels(section, name, statistics)


def show_labels(section: Section, name: str, statistics: Mapping[str, Any]) -> None:
    """Add the label statistics of a data set called ``name``: plots, and a table of its classes."""
    section.heading(f'{name.capitalize()}: {statistics["num_images"]:,} images')
    section.plot(plots.labels(statistics), f'Labels of the {name} data')
    head = ('objects', 'images', 'small', 'medium', 'large')
    cells = zip(statistics['classes'], *(statistics[column] for column in head), strict=True)
    section.table(['class', *head], [list(row) for row in cells], caption=f'Classes of the {name} data')


def _settings(page: Page, run: Run) -> None:
    section = page.section('Settings')
    if run.facts is not None:
        section.heading('Command')
        section.code(run.facts.command, label='Command')
        section.table(['name', 'value'], run.facts.versions, caption='Versions')
    if run.config_file is not None:
        section.heading('Config')
        section.text('With all its bases and overrides.')
        section.code(run.config_file.read_text(encoding='utf-8'), label='Config')
    if not section.blocks:
        section.text('Neither the command nor the config was kept.')
