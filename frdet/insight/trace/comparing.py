"""Several traces of the same objects beside each other, such as those of the checkpoints of one training."""

import heapq
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from frdet.errors import ConfigError, DataError
from frdet.insight.naming import run_names
from frdet.insight.page import Page, Row, Section
from frdet.insight.trace.folders import page_link
from frdet.insight.trace.making import make_trace
from frdet.insight.trace.model import FOUND, OBJECT_COLUMNS, OBJECTS, SUMMARY, Summary, read_rows
from frdet.insight.trace.shares_plot import shares

MOVES = 12  # rows of a table of moves
LISTED = 50  # objects that no trace finds
#: What an object is known by. Ids alone may be equal in other data, because many files number their objects from 1.
IDENTITY = ('image', 'id', 'class', 'left', 'top', 'width', 'height')
Key = tuple[Any, ...]


@dataclass(frozen=True)
class _Trace:
    """A trace: its name and folder, its summary, and the stage of each object."""

    name: str
    folder: Path
    summary: Summary
    stages: Mapping[Key, str]


def trace_checkpoints(cfg: Config, checkpoints: Sequence[str], out: str | Path, **options: Any) -> Path:
    """Trace several checkpoints of a config, and write the page that compares them.

    Args:
        cfg: the config.
        checkpoints: their paths, in the order of the page.
        out: the page. The trace of ``epoch_1.pth`` is written into the folder ``epoch_1`` beside it.
        options: more arguments of ``trace_objects``.

    Raises:
        UserError: config, data or a checkpoint are wrong, or a file cannot be written.
    """
    folders = {name: Path(out).parent / name for name in checkpoint_names(checkpoints)}
    for checkpoint, folder in zip(checkpoints, folders.values(), strict=True):
        make_trace(cfg, checkpoint, folder, **options)
    return write_comparison_page(folders, out) if is_main_process() else Path(out)


def checkpoint_names(checkpoints: Sequence[str]) -> list[str]:
    """The file name of each checkpoint without its ending, with its folder where two file names are equal.

    Raises:
        ConfigError: there are fewer than two, or one is given twice.
    """
    if len(checkpoints) < 2:
        raise ConfigError(f'{len(checkpoints)} checkpoint to compare: give two or more')
    places = Counter(map(os.path.abspath, checkpoints))
    if twice := [path for path in checkpoints if places[os.path.abspath(path)] > 1]:
        raise ConfigError(f'{twice[0]} would be compared with itself: give different checkpoints')
    return run_names([path.removesuffix('.pth') for path in checkpoints])


def write_comparison_page(folders: Mapping[str, Path], out: str | Path) -> Path:
    """Write the page that compares traces.

    Args:
        folders: name of a trace -> its folder, in the order of the page.
        out: the page.

    Raises:
        ConfigError: there are fewer than two, they cannot be compared, or ``out`` cannot be written.
        DataError: a folder holds no trace.
    """
    if len(folders) < 2:
        raise ConfigError(f'{len(folders)} trace to compare: give two or more')
    traces = [_read(name, folder) for name, folder in folders.items()]
    warnings = _refuse_different(traces)
    first, last = traces[0], traces[-1]
    stages = _in_order(traces)
    page = Page(
        'Where objects are lost, over checkpoints',
        f'{len(traces)} traces, from {first.name} to {last.name}.',
        facts={'objects': len(first.stages), 'found at IoU': first.summary.iou, 'config': first.summary.config},
        warnings=warnings,
    )
    _add_stages(page, traces, stages, Path(out).parent)
    _add_moves(page, traces, stages)
    _add_never_found(page, traces)
    page.write(out)
    return Path(out)


def _read(name: str, folder: Path) -> _Trace:
    summary = Summary.load(folder)
    try:
        stages = {key: row['stage'] for key, row in _objects(Path(folder))}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f'{Path(folder, OBJECTS)} cannot be read ({error}): trace {name} again') from None
    if Counter(stages.values()) != Counter(summary.counts):
        raise DataError(f'{folder}: {OBJECTS} and {SUMMARY} do not count the same objects: trace {name} again')
    return _Trace(name, Path(folder), summary, stages)


def _objects(folder: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    """The objects of a trace, each with its key: its IDENTITY, and how many equal objects stand before it."""
    before = Counter[Key]()
    for row in read_rows(folder / OBJECTS, OBJECT_COLUMNS):
        identity = tuple(row[name] for name in IDENTITY)
        yield (*identity, before[identity]), row
        before[identity] += 1


def _refuse_different(traces: Sequence[_Trace]) -> list[str]:
    """Raise ConfigError if traces cannot be compared. Returns sentences about what they do not share."""
    first, *others = traces
    for one in others:
        for option, attribute in (('--iou', 'iou'), ('--min-size', 'min_size')):
            values = [getattr(of.summary, attribute) for of in (first, one)]
            if values[0] != values[1]:
                raise ConfigError(
                    f'{first.name} was traced with {option} {values[0]:g}, and {one.name} with {values[1]:g}: '
                    f'trace both with the same {option}'
                )
        if first.stages.keys().isdisjoint(one.stages) and (first.stages or one.stages):
            raise ConfigError(f'{first.name} and {one.name} have no object in common: trace both on the same data')
    shared = len(_shared(traces))
    return [
        f'{one.name} has {len(one.stages):,} objects, of which {shared:,} are in all traces. Its shares are of all its '
        'objects. Moves are of the objects that both traces have, and objects that are never found are in all traces.'
        for one in traces
        if len(one.stages) > shared
    ]


def _shared(traces: Sequence[_Trace]) -> list[Key]:
    """The objects that all traces have, in the order of the first one."""
    first, *others = traces
    return [key for key in first.stages if all(key in one.stages for one in others)]


def _in_order(traces: Sequence[_Trace]) -> list[str]:
    """The stages of all traces, in the order of the pipeline; FOUND is the last one."""
    names = dict.fromkeys(stage.name for one in traces for stage in one.summary.stages if stage.name != FOUND)
    return [*names, FOUND]


def _add_stages(page: Page, traces: Sequence[_Trace], stages: Sequence[str], folder: Path) -> None:
    section = page.section(
        'Stages',
        'Each object is counted at the stage that lost it, or as found. Read a bar from its top, the first stage, down '
        'to the objects that are found.',
    )
    counts = {one.name: one.summary.counts for one in traces}
    said = '; '.join(f'{one.name}: {one.summary.recall:.1%} found' for one in traces)
    section.plot(shares(counts, stages), 'Share of objects by stage; the numbers are those of the last bar', alt=said)
    head, columns, before = ['stage'], list[Sequence[Any]]([stages]), list[float]()
    for one in traces:
        numbers = [one.summary.counts.get(stage, 0) for stage in stages]
        percents = [100 * number / max(one.summary.objects, 1) for number in numbers]
        head += [one.name, '%']
        columns += [numbers, [f'{percent:.1f}' for percent in percents]]
        if before:
            head.append('change')
            columns.append([f'{now - was:+.1f}' for now, was in zip(percents, before, strict=True)])
        before = percents
    caption = 'Objects by stage, their shares in percent, and the change in percentage points'
    section.table(head, list(zip(*columns, strict=True)), caption=caption)
    facts = [
        [
            page_link(one.folder, folder, one.name),
            one.summary.checkpoint or 'random weights',
            one.summary.objects,
            one.summary.counts[FOUND],
            f'{one.summary.recall:.1%}',
            sum(one.summary.false_positives.values()),
            next((value for name, value in one.summary.metrics.items() if name.endswith('bbox_mAP')), None),
        ]
        for one in traces
    ]
    head = ['trace', 'checkpoint', 'objects', 'found', 'recall', 'false positives', 'AP']
    section.table(head, facts, caption='Traces, with links to their pages')


def _add_moves(page: Page, traces: Sequence[_Trace], stages: Sequence[str]) -> None:
    section = page.section(
        'Moves',
        'Two checkpoints may find the same number of objects, and not the same ones: these tables count the objects '
        'whose stage differs.',
    )
    pairs = list(pairwise(traces))
    if len(traces) > 2:
        pairs.append((traces[0], traces[-1]))
    for before, after in pairs:
        _add_pair(section, before, after, stages)


def _add_pair(section: Section, before: _Trace, after: _Trace, stages: Sequence[str]) -> None:
    moves = Counter((before.stages[key], after.stages[key]) for key in _shared([before, after]))
    found = sum(n for (old, _), n in moves.items() if old == FOUND)
    lost = sum(n for (old, new), n in moves.items() if old == FOUND != new)
    gained = sum(n for (old, new), n in moves.items() if old != FOUND == new)
    section.heading(f'From {before.name} to {after.name}')
    section.text(
        f'Of the {found:,} objects that {before.name} found, {after.name} lost {lost:,}. '
        f'Of the {moves.total() - found:,} objects that {before.name} lost, {after.name} found {gained:,}.'
    )
    order = {stage: rank for rank, stage in enumerate(stages)}
    changed = [(pair, n) for pair, n in moves.items() if pair[0] != pair[1]]
    changed.sort(key=lambda item: (-item[1], order[item[0][0]], order[item[0][1]]))
    rows = [Row([*pair, n], tags={'objects': _kind(*pair)}) for pair, n in changed[:MOVES]]
    if rows:
        most = f', the {MOVES} largest of {len(changed)}' if len(changed) > MOVES else ', the largest first'
        head = [f'stage in {before.name}', f'stage in {after.name}', 'objects']
        section.table(head, rows, caption=f'Moves from {before.name} to {after.name}{most}')


def _kind(old: str, new: str) -> str:
    if old == FOUND:
        return 'found before'
    return 'found now' if new == FOUND else 'lost elsewhere'


def _add_never_found(page: Page, traces: Sequence[_Trace]) -> None:
    shared = _shared(traces)
    times = {key: sum(one.stages[key] == FOUND for one in traces) for key in shared}
    always, never = (sum(n == count for n in times.values()) for count in (len(traces), 0))
    section = page.section(
        'Never found',
        f'Of {len(shared):,} objects, {always:,} are found in every trace, {len(shared) - always - never:,} in some, '
        f'and {never:,} in none.\nAmong objects that no checkpoint finds, look for wrong labels, too.',
    )
    last = traces[-1]
    missed = (row for key, row in _objects(last.folder) if times.get(key) == 0)
    rows = heapq.nlargest(LISTED, missed, key=lambda row: row['width'] * row['height'])
    if rows:
        names = ('image', 'file', 'id', 'class', 'width', 'height', 'stage', 'why')
        head = [{'id': 'object', 'stage': f'stage in {last.name}'}.get(name, name) for name in names]
        most = f'The {LISTED} largest of {never:,} objects' if never > LISTED else 'Objects'
        section.table(head, [[row[name] for name in names] for row in rows], caption=f'{most} that are never found')
