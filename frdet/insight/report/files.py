"""``results.csv`` and the plots in the work dir."""

import csv
from pathlib import Path

from frdet.insight.plots import save
from frdet.insight.report import plots
from frdet.insight.report.logs import table
from frdet.insight.report.run import read_run
from frdet.visualization.fonts import legible


def write_files(work_dir: str | Path) -> list[Path]:
    """Write ``results.csv``, ``curves.png``, ``labels.png`` of the training data and, after a validation,
    ``precision_recall.png``, ``classes.png``, ``confusion_matrix.png`` and ``errors.png``.

    Returns:
        Their paths.

    Raises:
        ConfigError: ``work_dir`` is no work dir of a training.
    """
    run, folder = read_run(work_dir), Path(work_dir)
    head, rows = table(run.log)
    written = [folder / 'results.csv']
    with open(written[0], 'w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows([['' if value is None else value for value in row] for row in rows])
    drawn = {'curves.png': plots.curves(run)}
    if run.facts is not None and 'training' in run.facts.labels:
        statistics = run.facts.labels['training']
        drawn['labels.png'] = plots.labels({**statistics, 'classes': legible(statistics['classes'])})
    if run.evaluation is not None or run.analysis is not None:
        drawn['precision_recall.png'] = plots.precision_recall(run.evaluation, run.analysis)
    if run.analysis is not None:
        classes = legible(run.analysis.results.classes)
        shown = dict(zip(run.analysis.results.classes, classes, strict=True))
        if run.evaluation is not None:
            drawn['classes.png'] = plots.classes(
                run.evaluation,
                [shown.get(name, name) for name in run.analysis.results.names_of(run.evaluation.cat_ids)],
            )
        drawn['confusion_matrix.png'] = plots.confusion(run.analysis.confusion, classes)
        drawn['errors.png'] = plots.error_costs(run.analysis.errors.cost)
    for name, plot in drawn.items():
        save(plot, folder / name)
        written.append(folder / name)
    return written
