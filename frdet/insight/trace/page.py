"""The page of a trace: where the objects of a data set were lost, one by one and all together."""

import heapq
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from frdet.errors import DataError
from frdet.insight.errors import kind_texts
from frdet.insight.page import Page, Section
from frdet.insight.plots import save
from frdet.insight.trace import plots
from frdet.insight.trace.columns import Rows, read_objects
from frdet.insight.trace.model import (
    DETECTION_COLUMNS,
    DETECTIONS,
    FOUND,
    Card,
    Help,
    Summary,
    load_cards,
    read_rows,
)
from frdet.insight.trace.pictures import crop
from frdet.insight.trace.sentences import MEANINGS, fate, percent, settings, step_command

FUNNEL = 'funnel.png'
PICTURES = 3_200_000  # letters of all pictures; the page stays below 10 MB with ``columns.MOST`` objects
WRONG = 500  # false positives that are listed
METRICS = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75')  # that stand at the top
#: Colours of the stages in their order, again from the first after the last; white letters are legible on each.
COLOURS = ('#64748b', '#0e7490', '#2563eb', '#7c3aed', '#be185d', '#b45309', '#4d7c0f')
FOUND_COLOUR = '#15803d'


def write_trace_page(folder: str | Path, out: str | Path, *, helps: Sequence[Help] = ()) -> Path:
    """Write the page of a trace, and ``funnel.png`` beside it.

    Args:
        folder: what ``trace_objects`` wrote.
        out: the file.
        helps: what changed settings would do; without them that section is left out.

    Raises:
        DataError: ``folder`` is no trace.
        ConfigError: ``out`` cannot be written.
    """
    folder, out = Path(folder), Path(out)
    summary = Summary.load(folder)
    page = Page(
        'Where were the objects lost?',
        f'{summary.counts[FOUND]:,} of {summary.objects:,} objects are found. Each of the others is followed through '
        f'the {summary.detector} to the stage that lost it.',
        facts=_facts(summary),
        extra='trace',
    )
    try:
        cards = {(card.image, card.id): card for card in load_cards(folder)}
        rows = read_objects(folder, summary, cards)
        warnings = list(summary.notes)
        if (shown := len(rows.columns.get('id', ()))) < rows.total:
            warnings.append(f'The table has {shown:,} of the {rows.total:,} objects; objects.csv has all of them.')
        data = _data(summary, rows)
        _funnel(page, rows, data)
        _objects(page)
        warnings += _pictures(page, rows, _alternating(cards, rows), data)
        _helps(page, sorted(helps, key=lambda one: -one.gain))
        _false_positives(page, summary, folder)
        _stages(page, summary)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f'{folder} is no whole trace ({error!r}): run tools/trace_objects.py again') from error
    page.warnings = warnings or None
    page.write(out)
    save(plots.funnel(summary), out.parent / FUNNEL)
    return out


def _facts(summary: Summary) -> dict[str, Any]:
    return {
        'config': summary.config,
        'checkpoint': summary.checkpoint or 'none',
        'data': summary.split,
        'images': summary.images,
        'objects': summary.objects,
        'found': summary.counts[FOUND],
        'recall': percent(summary.counts[FOUND], summary.objects),
        'found from IoU': summary.iou,
        **{name: value for name, value in summary.metrics.items() if name.endswith(METRICS)},
    }


def _data(summary: Summary, rows: Rows) -> dict[str, Any]:
    """What the script of the page reads."""
    hues = [*(COLOURS[place % len(COLOURS)] for place in range(len(summary.stages) - 1)), FOUND_COLOUR]
    return {
        'stages': [
            {'name': stage.name, 'about': stage.about, 'keys': settings(stage), 'colour': colour}
            for stage, colour in zip(summary.stages, hues, strict=True)
        ],
        'meanings': list(MEANINGS.items()),
        'command': step_command(summary),
        'images': rows.images,
        'classes': rows.classes,
        'words': rows.words,
        'columns': rows.columns,
        'splits': [vars(split) for split in rows.splits],
        'pictured': [],  # the row of every picture
    }


def _funnel(page: Page, rows: Rows, data: dict[str, Any]) -> None:
    section = page.section(
        'Funnel',
        'Every stage gets the objects that the stages above it left, and loses some. An object is lost at a stage if '
        'no box that fits it gets past. Press a bar to see only its objects in the table and the pictures.',
    )
    section.part('trace_funnel.html', splits=[split.name for split in rows.splits], data=data)
    if not rows.total:
        section.text('The data have no object: crowds and ignored objects do not count.')


def _objects(page: Page) -> None:
    section = page.section('Objects', 'Press a row, or go to it with the arrow keys and press Enter, to see all of it.')
    section.part('trace_objects.html')


def _alternating(cards: dict[tuple[str, str], Card], rows: Rows) -> list[Card]:
    """The first card of every stage, then the second of every stage, ...: the page may have no room for the last."""
    by_stage: dict[int, list[Card]] = {}
    for key, card in cards.items():
        if key in rows.place:
            by_stage.setdefault(rows.columns['stage'][rows.place[key]], []).append(card)
    in_order = [by_stage[stage] for stage in sorted(by_stage)]
    return [card for some in zip_longest(*in_order) for card in some if card is not None]


def _pictures(page: Page, rows: Rows, cards: Sequence[Card], data: dict[str, Any]) -> list[str]:
    """The chosen object and the pictures; gives sentences about what is missing."""
    section = page.section('Object by object', tiled=True, legend='kind')
    section.part('trace_object.html', cards=len(cards))
    unread: list[str] = []
    room = PICTURES
    for card in cards:
        if room <= 0:
            break
        row = rows.place[card.image, card.id]
        left, top, width, height, label, stage = (
            rows.columns[name][row] for name in ('left', 'top', 'width', 'height', 'class', 'stage')
        )
        name = rows.classes[label]
        if (drawn := crop(card, (left, top, left + width, top + height), name)) is None:
            unread.append(card.path)
        else:
            caption = f'{name} {card.id}: {fate(data["stages"][stage]["name"])}'
            section.picture(drawn[0], caption, marks=drawn[1])
            data['pictured'].append(row)
            room -= len(section.blocks[-1]['uri'])
    missing = []
    if unread:
        what = '1 picture is' if len(unread) == 1 else f'{len(unread)} pictures are'
        missing.append(f'{what} missing, because an image cannot be read, such as {unread[0]}.')
    if (left_out := len(cards) - len(unread) - len(data['pictured'])) > 0:
        missing.append(f'The page has no room for {left_out} of the {len(cards)} pictures; cards.json has all of them.')
    return missing


def _helps(page: Page, helps: Sequence[Help]) -> None:
    if not helps:
        return
    section = page.section(
        'What would help',
        'The recall at the end if only one setting changed: the detector was run again from the stage on, with the '
        'same weights. A gain is within noise if its 95% interval over images includes 0.',
    )
    section.plot(plots.gains(helps), 'Gain in recall, with its 95% interval; grey: within noise')
    section.table(
        ['stage', 'change', 'recall', 'with it', 'gain', '95%, images', 'this is', 'cost', 'note', 'images', 'objects'],
        [
            [
                one.stage,
                _arrows(one.change),
                f'{one.recall[0]:.1%}',
                f'{one.recall[1]:.1%}',
                f'{one.gain:+.1%}',
                f'[{one.interval[0]:+.1%},\N{NO-BREAK SPACE}{one.interval[1]:+.1%}]',
                'within noise' if one.is_noise else 'a gain' if one.gain > 0 else 'a loss',
                _arrows(one.cost) or None,
                _arrows(one.note) or None,
                one.images,
                one.objects,
            ]
            for one in helps
        ],
        caption='Changes, the greatest gain first',
    )
    for one in helps:
        if one.lines and one.gain > 0:
            section.heading(f'{_arrows(one.change)}: what to write')
            section.code(one.lines, label=f'Config lines for {one.change}')


def _arrows(text: str) -> str:
    """No line ends before an arrow."""
    return text.replace(' -> ', '\N{NO-BREAK SPACE}→ ')


def _false_positives(page: Page, summary: Summary, folder: Path) -> None:
    section = page.section('False positives', 'Detections that find no object, and where they came from.')
    levels: Counter = Counter()

    def counted() -> Any:
        for row in read_rows(folder / DETECTIONS, DETECTION_COLUMNS):
            levels[row['level'], row['kind']] += 1
            yield row

    best = heapq.nlargest(WRONG, counted(), key=lambda row: row['score'])
    total, texts = sum(summary.false_positives.values()), kind_texts(summary.iou)
    if not total:
        section.text('There is no false positive.')
        return
    section.table(
        ['kind', 'count', 'share', 'a detection that'],
        [
            [kind, count, percent(count, total), texts.get(kind)]
            for kind, count in sorted(summary.false_positives.items(), key=lambda item: -item[1])
        ],
        caption='False positives by kind',
    )
    _levels(section, levels, [kind for kind in texts if summary.false_positives.get(kind)])
    head = ['score', 'class', 'kind', 'image', 'file', 'object', 'IoU', 'level', 'anchor', 'its score', 'proposal rank']
    section.table(head, map(_cells, best), caption=f'The {len(best)} false positives with the highest scores')


def _cells(row: dict[str, Any]) -> list[Any]:
    """The cells of a false positive; what is not known is None."""
    names = ('score', 'class', 'kind', 'image', 'file', 'object', 'iou', 'level')
    anchor = None
    if row['anchor_width'] is not None:
        anchor = f'{row["anchor_width"]:.0f}\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}{row["anchor_height"]:.0f}'
    return [*(row[name] or None for name in names), anchor, row['anchor_score'], row['proposal_rank']]


def _levels(section: Section, counts: Counter, kinds: Sequence[str]) -> None:
    names = sorted({level for level, _ in counts if level}, key=lambda name: (len(name), name))
    if names:
        rows = [[name, *(counts[name, kind] for kind in kinds)] for name in names]
        caption = 'False positives by the level of their anchor'
        section.table(['level', 'all', *kinds], [[row[0], sum(row[1:]), *row[1:]] for row in rows], caption=caption)


def _stages(page: Page, summary: Summary) -> None:
    section = page.section('Stages', 'An object is lost at the first stage after which no box that fits it is left.')
    section.table(
        ['', 'stage', 'lost', 'share', 'lost because', 'settings'],
        [
            [
                str(number),
                stage.name,
                summary.counts[stage.name],
                percent(summary.counts[stage.name], summary.objects),
                stage.about,
                '; '.join(f'{key} = {value}' for key, value in settings(stage)) or None,
            ]
            for number, stage in enumerate(summary.stages[:-1], start=1)
        ],
        caption='In the order of the pipeline',
    )
