"""What a source of data holds, in words and numbers."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
from terminaltables import AsciiTable

from frdet.apis.own_data.families import Family
from frdet.apis.own_data.sources import SPLIT, Source, count_boxes
from frdet.datasets.annotations import Annotations

SHOWN = 20  # classes in the table
FEW = 20  # images of validation
RARE = 10  # boxes of a class
HUGE = 4000  # pixels of the long side of an image
MASK = re.compile(rb'"segmentation"\s*:\s*(\[\s*\[|\{)')  # in the text of a COCO file: polygons, or an RLE
MOST = 100  # detections in an image, as the base config has them


def summarise(source: Source, family: Family) -> str:
    """The lines that a user reads before the config is written: counts, sizes and doubts."""
    parts = f'parts {", ".join(source.contents)}'
    if source.parts.is_divided:
        parts = f'no parts, so {SPLIT["val"]:.0%} of the images will be for validation'
    notes = [*source.found.notes, *source.parts.notes, *_doubts(source, family)]
    return '\n'.join(
        [
            f'{source.path}: {source.found.format}, {len(source.classes)} classes, {parts}',
            class_table(source.contents, source.classes),
            *describe(source.contents),
            *(f'Note: {note}' for note in notes),
        ]
    )


def class_table(contents: Mapping[str, Annotations], classes: Sequence[str]) -> str:
    """One row for each of the most frequent classes, with the number of its boxes in every part."""
    each = {part: count_boxes(content) for part, content in contents.items()}
    total = {name: sum(counts.get(name, 0) for counts in each.values()) for name in classes}
    rows = [['class', *('boxes' if part == 'all' else f'boxes in {part}' for part in each)]]
    for name in sorted(classes, key=lambda name: -total[name])[:SHOWN]:
        rows.append([name, *(f'{counts.get(name, 0):,}' for counts in each.values())])
    if len(classes) > SHOWN:
        rows.append([f'and {len(classes) - SHOWN} more', *('' for _ in each)])
    table = AsciiTable(rows)
    table.justify_columns = dict.fromkeys(range(1, len(each) + 1), 'right')
    return table.table


def describe(contents: Mapping[str, Annotations]) -> list[str]:
    """Sentences about the images, and about the boxes in pixels of the images."""
    sizes = np.concatenate([image_sizes(content) for content in contents.values()])
    boxes = np.concatenate([content.boxes for content in contents.values()])
    shorts, longs = sizes.min(axis=1), sizes.max(axis=1)
    empty = sum(len(content.images) - len(np.unique(content.image_index)) for content in contents.values())
    small, middle, large = np.percentile(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)), [10, 50, 90])
    counts = ', '.join(f'{len(content.images):,} in {part}' for part, content in contents.items())
    negatives = f'{empty:,} without a box, kept as background' if empty else 'each with a box'
    return [
        f'Images: {counts.removesuffix(" in all")}, {negatives}.',
        f'Short side: median {np.median(shorts):.0f} pixels, {shorts.min():.0f} to {shorts.max():.0f}. '
        f'Long side: median {np.median(longs):.0f}, {longs.min():.0f} to {longs.max():.0f}.',
        f'Objects: 10% are under {small:.0f} pixels, 50% under {middle:.0f}, 90% under {large:.0f}, as the square root '
        'of the area.',
    ]


def image_sizes(content: Annotations) -> np.ndarray:
    """(N, 2) float64 height and width."""
    return np.array([(image['height'], image['width']) for image in content.images], dtype=np.float64).reshape(-1, 2)


def _doubts(source: Source, family: Family) -> list[str]:
    said = []
    divided, contents = source.parts.is_divided, source.contents
    validated = round(len(contents['all'].images) * SPLIT['val']) if divided else len(contents['val'].images)
    if validated < FEW:
        about = 'about ' if divided else ''
        said.append(f'Validation has only {about}{validated} images, so AP will vary by several points between epochs.')
    trained = count_boxes(contents['all' if divided else 'train'])
    if unlearnt := [name for name in source.classes if not trained.get(name)]:
        said.append(
            f'Train has no box of {few(unlearnt)}, which cannot be learnt and lowers AP: move some of its images to '
            'train, or take it out of the classes in the config.'
        )
    if rare := [name for name in source.classes if 0 < trained.get(name, 0) < RARE]:
        said.append(f'There are fewer than {RARE} boxes of {few(rare)}: hardly enough to learn from.')
    crowded = max(int(np.bincount(content.image_index, minlength=1).max()) for content in contents.values())
    if crowded > MOST:
        said.append(
            f'An image has {crowded} objects, and at most {MOST} are detected in one: set {family.limits} of the '
            'model to more.'
        )
    if not family.with_masks and has_masks(source):
        said.append('The objects have masks. This config learns their boxes; --model mask_rcnn learns the masks, too.')
    longest = np.median(np.concatenate([image_sizes(content).max(axis=1) for content in contents.values()]))
    if longest > HUGE:
        said.append(
            f'The images are {longest:.0f} pixels long, and are made much smaller for the network. Cut them into tiles '
            'first if small objects matter.'
        )
    return said


def has_masks(source: Source) -> bool:
    """Whether a COCO file has a mask. Annotations are read without masks, so the text is searched for one."""
    files = {Path(source.found.root, arguments.get('ann_file', '')) for arguments in source.parts.arguments.values()}
    return source.found.reader == 'CocoDataset' and any(map(_holds_mask, files))


def _holds_mask(file: Path) -> bool:
    with suppress(OSError, ValueError), open(file, 'rb') as own, mmap(own.fileno(), 0, access=ACCESS_READ) as text:
        return MASK.search(text) is not None
    return False


def few(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names[:5])) + (f' and {len(names) - 5} more' if len(names) > 5 else '')
