"""The section of a report about where objects were lost, from the traces in the work dir."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from frdet.checkpoints.runs import last_checkpoint
from frdet.errors import DataError
from frdet.insight.page import Link, Page, Section
from frdet.insight.report.run import Run
from frdet.insight.trace.folders import find_comparisons, find_traces, is_outdated, page_link
from frdet.insight.trace.model import FOUND, Stage, Summary
from frdet.insight.trace.sentences import percent, settings


def add_traces(page: Page, run: Run, *, folder: Path) -> None:
    """Add the stages of the newest trace, with links from a page in ``folder``; without any, the command for one."""
    traces: dict[Path, Summary] = {}
    for found in find_traces(run.work_dir):
        try:
            traces[found] = Summary.load(found)
        except DataError as error:
            run.missing.append(str(error))
    section = page.section('Where objects were lost')
    if not traces:
        section.text('This command follows each annotated object through the detector, to the stage that lost it:')
        paths = run.config_file or 'CONFIG', last_checkpoint(run.work_dir) or 'CHECKPOINT'
        command = ['python', 'tools/trace_objects.py', *map(str, paths), '--split', 'val']
        section.code(shlex.join(command), label='Command')
        return
    newest, summary = next(iter(traces.items()))
    if summary.checkpoint and is_outdated(newest, Path(summary.checkpoint)):
        run.missing.append(f'The trace in {newest} is older than its checkpoint {summary.checkpoint}: make it again')
    _add_stages(section, summary)
    _add_links(section, run, traces, folder)


def _add_stages(section: Section, summary: Summary) -> None:
    weights = summary.checkpoint or 'random weights'
    section.about = (
        f'This is the newest trace, of {weights} on {summary.images:,} images. Each of the {summary.objects:,} objects '
        f'is found from IoU {summary.iou:g} on, or it is counted at the stage that lost it. Stages that lost none are '
        'left out.'
    )
    rows = [
        [stage.name, count, percent(count, summary.objects), stage.about, _settings(stage)]
        for stage in summary.stages
        if (count := summary.counts[stage.name]) or stage.name == FOUND
    ]
    section.table(['stage', 'objects', 'share', 'why', 'settings'], rows, caption='Objects by stage')


def _add_links(section: Section, run: Run, traces: Mapping[Path, Summary], folder: Path) -> None:
    rows = [
        [page_link(one, folder, str(one.relative_to(run.work_dir))), of.checkpoint or 'random weights', of.objects,
         of.counts[FOUND], percent(of.counts[FOUND], of.objects)]
        for one, of in traces.items()
    ]  # fmt: skip
    head = ['trace', 'checkpoint', 'objects', 'found', 'recall']
    section.table(head, rows, caption='Traces, the newest first')
    if comparisons := find_comparisons(list(traces)):
        links = [[Link.to(one, folder, str(one.relative_to(run.work_dir)))] for one in comparisons]
        section.table(['page'], links, caption='Pages that compare traces')


def _settings(stage: Stage) -> str:
    return ', '.join(f'{key}={value}' for key, value in settings(stage))
