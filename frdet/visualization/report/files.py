"""``results.csv`` and the plots in the work folder."""

import csv
from pathlib import Path

from frdet.visualization.plots import save
from frdet.visualization.report import figures
from frdet.visualization.report.logs import table
from frdet.visualization.report.run import read_run

#: All that ``write_files`` may write.
NAMES = (
    'results.csv',
    'curves.png',
    'labels.png',
    'precision_recall.png',
    'classes.png',
    'confusion_matrix.png',
    'errors.png',
)


def write_files(work_dir: str | Path) -> list[Path]:
    """Write ``results.csv``, ``curves.png``, ``labels.png`` of the training data and, after a validation,
    ``precision_recall.png``, ``classes.png``, ``confusion_matrix.png`` and ``errors.png``.

    Returns:
        Their paths.

    Raises:
        ConfigError: ``work_dir`` is no work folder of a training.
    """
    run, folder = read_run(work_dir), Path(work_dir)
    head, rows = table(run.log)
    written = [folder / 'results.csv']
    with open(written[0], 'w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows([['' if value is None else value for value in row] for row in rows])
    plots = {'curves.png': figures.curves(run)}
    if run.facts is not None and 'training' in run.facts.labels:
        plots['labels.png'] = figures.labels(run.facts.labels['training'])
    if run.evaluation is not None or run.analysis is not None:
        plots['precision_recall.png'] = figures.precision_recall(run.evaluation, run.analysis)
    if run.analysis is not None:
        names = run.analysis.results.classes
        if run.evaluation is not None:
            plots['classes.png'] = figures.classes(
                run.evaluation, run.analysis.results.names_of(run.evaluation.cat_ids)
            )
        plots['confusion_matrix.png'] = figures.confusion(run.analysis.confusion, names)
        plots['errors.png'] = figures.error_costs(run.analysis.errors.cost)
    for name, (paint, size, rows_, columns) in plots.items():
        save(paint, folder / name, size=size, rows=rows_, columns=columns)
        written.append(folder / name)
    return written
