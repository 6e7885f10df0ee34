"""The plots of a report, and the files of every training; ``frdet.insight.plots`` draws them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb

from frdet.evaluation.backends import CocoEval
from frdet.insight.curves import COLUMNS, class_table, precision_curve
from frdet.insight.naming import short
from frdet.insight.plots import COLOURS, Plot, save
from frdet.insight.report.run import Analysis, Log, Run, read_run
from frdet.insight.store import SIZE_EDGES
from frdet.visualization.fonts import legible

#: Metrics that are drawn over the iterations: the end of the name in the log, and the name in the plot.
METRICS = {'bbox_mAP': 'AP', 'bbox_mAP_50': 'AP50', 'bbox_mAP_75': 'AP75', 'segm_mAP': 'AP of masks'}
MANY_CLASSES = 20
MOST_CLASSES = 100  # that one plot shows, because its size grows with them
# Transparent to blue, so that text in the page's colour is legible above it on a light and on a dark page.
_BLUES = LinearSegmentedColormap.from_list('blues', [(*to_rgb(COLOURS['blue']), alpha) for alpha in (0.0, 0.65)])


def write_files(work_dir: str | Path) -> list[Path]:
    """Write ``results.csv``, ``curves.png``, ``labels.png`` of the training data and, after a validation,
    ``precision_recall.png``, ``classes.png``, ``confusion_matrix.png`` and ``errors.png``.

    Returns:
        Their paths.

    Raises:
        ConfigError: ``work_dir`` is no work dir of a training.
    """
    run, folder = read_run(work_dir), Path(work_dir)
    head, rows = run.log.table()
    with open(folder / 'results.csv', 'w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows([head, *rows])  # None becomes an empty cell
    drawn = {'curves.png': curves(run)}
    if run.facts is not None and (statistics := run.facts.labels.get('training')):
        drawn['labels.png'] = labels({**statistics, 'classes': legible(statistics['classes'])})
    if run.evaluation is not None or run.analysis is not None:
        drawn['precision_recall.png'] = precision_recall(run.evaluation, run.analysis)
    if run.analysis is not None:
        results = run.analysis.results
        results = results._replace(classes=list(legible(results.classes)))
        if run.evaluation is not None:
            drawn['classes.png'] = classes(run.evaluation, results.names_of(run.evaluation.cat_ids))
        drawn['confusion_matrix.png'] = confusion(run.analysis.confusion, results.classes)
        drawn['errors.png'] = error_costs(run.analysis.errors.cost)
    for name, plot in drawn.items():
        save(plot, folder / name)
    return [folder / name for name in ('results.csv', *drawn)]


def curves(run: Run) -> Plot:
    """Losses, learning rate, AP and seconds an iteration over the iterations."""

    def paint(axes: np.ndarray) -> None:
        (losses, ap), (rate, time) = axes
        for name in run.log.losses:
            _draw_series(losses, run.log, name, name)
        for ending, label in METRICS.items():
            if not ending.startswith('segm') or run.metric(run.last, ending) is not None:
                _draw_metric(ap, run, ending, label)
        _draw_series(rate, run.log, 'lr')
        _draw_series(time, run.log, 'time', 'all')
        _draw_series(time, run.log, 'data_time', 'waiting for data')
        titles = ('Loss', 'Average precision', 'Learning rate', 'Seconds an iteration')
        for axis, title in zip(axes.flat, titles, strict=True):
            _finish(axis, title)

    return Plot(paint, (9.0, 5.6), 2, 2)


def memory(log: Log) -> Plot:
    """Memory of the GPU over the iterations."""

    def paint(axis: Any) -> None:
        _draw_series(axis, log, 'memory')
        _finish(axis, 'Memory of the GPU in MB')

    return Plot(paint, (7.0, 2.6))


def comparison(runs: Mapping[str, Run]) -> Plot:
    """AP and loss of several runs."""

    def paint(axes: np.ndarray) -> None:
        for name, run in runs.items():
            _draw_series(axes[0], run.log, 'loss')
            _draw_metric(axes[1], run, 'bbox_mAP', name)
        _finish(axes[0], 'Loss')
        _finish(axes[1], 'Average precision')

    return Plot(paint, (9.0, 3.4), columns=2)


def _draw_series(axis: Any, log: Log, name: str, label: str | None = None) -> None:
    """A number that the training logged; few points get markers, because a single point draws no line."""
    axis.plot(*log.series(name), label=label, markersize=3, marker='o' if len(log.train) < 3 else '')


def _draw_metric(axis: Any, run: Run, ending: str, label: str) -> None:
    """The metric whose name ends with ``ending``, where a validation has it."""
    points = [(r['iter'], value) for r in run.log.val if (value := run.metric(r, ending)) is not None]
    axis.plot(*np.array(points).reshape(-1, 2).T, marker='o', markersize=3, label=label)


def _finish(axis: Any, title: str) -> None:
    """Title and legend; the vertical axis begins at 0 and ends above all lines, also if they are constant."""
    highest = [np.nanmax(line.get_ydata(), initial=0.0) for line in axis.get_lines()]
    axis.set_ylim(0, 1.05 * max(highest, default=0.0) or 1.0)
    axis.set(title=title, xlabel='iteration')
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize='small')


def precision_recall(evaluation: CocoEval | None, analysis: Analysis | None) -> Plot:
    """Precision against recall; F1, precision and recall against the least score of detections that count."""

    def paint(axes: np.ndarray) -> None:
        if evaluation is not None:
            recalls = np.linspace(0, 1, evaluation.precision.shape[1])
            for label, iou in (('IoU 0.5', 0.5), ('IoU 0.75', 0.75), ('mean of 0.5 to 0.95', None)):
                axes[0].plot(recalls, precision_curve(evaluation, iou=iou), label=label)
            axes[0].legend(fontsize='small')
        axes[0].set(title='Mean over classes', xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
        if analysis is not None and len(analysis.f1.scores):
            f1 = analysis.f1
            step = max(1, len(f1.scores) // 400)  # about 400 points suffice
            for name, values in (('F1', f1.f1), ('precision', f1.precision), ('recall', f1.recall)):
                axes[1].plot(f1.scores[::step], values[::step], label=name)
            axes[1].axvline(f1.threshold, color=COLOURS['grey'], linestyle='--')
            axes[1].legend(fontsize='small')
        axes[1].set(title='All classes together, IoU 0.5', xlabel='least score', xlim=(0, 1), ylim=(0, 1.02))

    return Plot(paint, (9.0, 3.4), columns=2)


def classes(evaluation: CocoEval, names: Sequence[str]) -> Plot:
    """AP of each class of the evaluation, the best on top, and mean AP by size of objects.

    If there are more classes than ``MOST_CLASSES``, the best and the worst ``MOST_CLASSES // 2`` are shown.
    """
    table = class_table(evaluation)
    order = [k for k in np.argsort(table[:, 0], kind='stable') if not np.isnan(table[k, 0])]
    titles = ['AP by class', 'AP by size of the objects']
    if len(order) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        titles[0] = f'AP by class: the {half} best and {half} worst of {len(order):,}'
        order = order[:half] + order[-half:]
    sizes = {'all': 'AP', 'small': 'AP_s', 'medium': 'AP_m', 'large': 'AP_l'}
    columns = {size: table[:, COLUMNS.index(name)] for size, name in sizes.items()}
    means = {size: float(np.mean(v[~np.isnan(v)])) for size, v in columns.items() if not np.isnan(v).all()}

    def paint(axes: np.ndarray) -> None:
        axes[0].barh(range(len(order)), table[order, 0])
        axes[0].set_yticks(range(len(order)), short([names[k] for k in order]))
        axes[1].barh(list(means)[::-1], list(means.values())[::-1])
        for axis, title in zip(axes, titles, strict=True):
            axis.set(title=title, xlim=(0, 1))
            axis.margins(y=0.02)

    return Plot(paint, (9.0, max(2.4, 0.8 + 0.2 * len(order))), columns=2)


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Plot:
    """Shares of each row of a confusion matrix (K + 1, K + 1), whose last row and column are the background.

    If there are more classes than ``MOST_CLASSES``, the ``MOST_CLASSES // 2`` that are confused most often are shown,
    with the sum of the others.
    """
    title = ''
    if len(classes) > MOST_CLASSES:
        title = f'The {MOST_CLASSES // 2} of {len(classes):,} classes that are confused most often'
        matrix, classes = _most_confused(matrix, classes, MOST_CLASSES // 2)
    names = short([*classes, 'background'])
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    def paint(axis: Any) -> None:
        axis.imshow(share, cmap=_BLUES, vmin=0, vmax=1, aspect='auto')
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=font_size)
        axis.set_yticks(range(len(names)), names, fontsize=font_size)
        axis.set(xlabel='found', ylabel='annotated', title=title)
        axis.grid(False)
        if len(names) <= MANY_CLASSES:
            for row, column in np.argwhere(matrix):
                axis.text(column, row, str(matrix[row, column]), ha='center', va='center', fontsize=8)

    font_size, inches = (9, 0.42) if len(names) <= MANY_CLASSES else (7, 0.14) if len(names) <= 60 else (5, 0.09)
    side = 2.5 + len(names) * inches
    return Plot(paint, (side + 1, side))


def _most_confused(matrix: np.ndarray, classes: Sequence[str], count: int) -> tuple[np.ndarray, list[str]]:
    """A confusion matrix (count + 2, count + 2) of some classes, all others, and the background; and its classes."""
    among = matrix[:-1, :-1]
    confused = among.sum(axis=0) + among.sum(axis=1) - 2 * np.diagonal(among)
    shown = np.sort(np.lexsort((-matrix[:-1].sum(axis=1), -confused))[:count])  # classes with more objects win ties
    group = np.full(len(matrix), count)
    group[shown], group[-1] = np.arange(count), count + 1
    member = np.eye(count + 2)[group]
    grouped = (member.T @ matrix @ member).astype(matrix.dtype)
    return grouped, [*(classes[k] for k in shown), 'all other classes']


def error_costs(costs: Mapping[str, float]) -> Plot:
    """The AP that every kind of error costs."""

    def paint(axis: Any) -> None:
        axis.barh(list(costs)[::-1], list(costs.values())[::-1], color=COLOURS['orange'])
        axis.set(xlabel='AP at IoU 0.5 that is lost')

    return Plot(paint, (7.0, 2.4))


def labels(statistics: Mapping[str, Any]) -> Plot:
    """Objects of each class, sizes of boxes, and boxes an image."""

    def paint(axes: np.ndarray) -> None:
        counts = np.array(statistics['objects'])
        order = np.argsort(-counts, kind='stable')[:MANY_CLASSES]
        axes[0].barh(range(len(order)), counts[order][::-1])
        axes[0].set_yticks(range(len(order)), short([statistics['classes'][k] for k in order][::-1]))
        axes[0].set(title='Objects' if len(counts) <= MANY_CLASSES else f'Objects, {MANY_CLASSES} commonest classes')
        axes[1].stairs(statistics['sizes'], SIZE_EDGES, fill=True, alpha=0.7)
        axes[1].set(title='Box size', xlabel='square root of the area, pixels', xscale='log')
        ticks = (4, 16, 32, 96, 256, 1024)
        axes[1].set_xticks(ticks, [str(k) for k in ticks])
        axes[1].minorticks_off()
        axes[2].bar(range(len(statistics['per_image'])), statistics['per_image'], width=0.9)
        axes[2].set(title='Images by number of boxes', xlabel='boxes')

    height = 1.6 + 0.15 * min(len(statistics['classes']), MANY_CLASSES)
    return Plot(paint, (9.0, max(2.6, height)), columns=3)
