"""What a user reads about a folder of labelled images: counts, sizes and doubts, each computed by hand."""

import numpy as np
import pytest

from frdet.apis.own_data.families import FAMILIES
from frdet.apis.own_data.sources import Parts, Source
from frdet.apis.own_data.summary import class_table, describe, few, summarise
from frdet.datasets import Annotations
from frdet.datasets.formats.recognising import Found


def content(counts, sizes=((400, 600),), image=0):
    """Images of the given heights and widths. One has all boxes: so many of each class, of 10 x 10 pixels."""
    names = np.repeat(np.arange(len(counts)), list(counts.values()))
    return Annotations(
        images=[dict(file_name=f'{k}.jpg', height=h, width=w) for k, (h, w) in enumerate(sizes)],
        categories=list(counts),
        image_index=np.full(len(names), image),
        category_index=names,
        xywh=np.tile([5.0, 5, 10, 10], (len(names), 1)),
    )


def said(parts, notes=(), model='faster_rcnn'):
    """The lines about data with these parts, for a model; the part 'all' will be divided."""
    names = list(dict.fromkeys(name for one in parts.values() for name in one.categories))
    found = Found('COCO JSON', 'CocoDataset', 'data', {}, ['A note on the files.', *notes])
    chosen = Parts({}, 'all' in parts, ['A note on the parts.'])
    return summarise(Source('data/cells', found, chosen, parts, names, [], None), FAMILIES[model]).splitlines()


def doubts(model='faster_rcnn', **parts):
    return [line.removeprefix('Note: ') for line in said(parts, model=model) if line.startswith('Note: ')][2:]


def test_sizes_of_images_and_objects():
    """Sides of 10, 20, ..., 110 pixels, each of a box twice as wide and half as high."""
    sides = 10.0 * np.arange(1, 12)
    one = content(dict(cat=11), sizes=[(400, 600), (800, 500), (450, 450)], image=1)
    boxes = np.stack([0 * sides, 0 * sides, 2 * sides, sides / 2], axis=1)
    one = Annotations(images=one.images, categories=['cat'], image_index=[1] * 11, category_index=[0] * 11, boxes=boxes)
    assert describe({'all': one}) == [
        'Images: 3, 2 without a box, kept as background.',
        'Short side: median 450 pixels, 400 to 500. Long side: median 600, 450 to 800.',
        'Objects: 10% are under 20 pixels, 50% under 60, 90% under 100, as the square root of the area.',
    ]
    many = content(dict(cat=1), sizes=[(400, 600)])
    assert (
        describe({'train': many, 'val': one})[0] == 'Images: 1 in train, 3 in val, 2 without a box, kept as background.'
    )
    assert describe({'train': many, 'val': many})[0] == 'Images: 1 in train, 1 in val, each with a box.'


def cells(table):
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in table.splitlines() if line.startswith('|')]


def test_the_most_frequent_classes():
    """The 22 classes have 1 to 22 boxes; the two with the fewest are only counted."""
    counts = {f'class {k}': k for k in range(1, 23)}
    rows = cells(class_table({'all': content(counts)}, list(counts)))
    assert rows == [['class', 'boxes'], *([f'class {k}', str(k)] for k in range(22, 2, -1)), ['and 2 more', '']]
    parts = {'train': content(dict(cat=1, dog=1200)), 'val': content(dict(cat=1300))}
    assert cells(class_table(parts, ['cat', 'dog'])) == [
        ['class', 'boxes in train', 'boxes in val'],
        ['cat', '1', '1,300'],
        ['dog', '1,200', '0'],
    ]


def test_the_first_line_and_the_notes():
    one = content(dict(cat=20), sizes=[(9, 9)] * 100)
    first, *_, files, parts = said({'all': one})
    assert first == 'data/cells: COCO JSON, 1 classes, no parts, so 20% of the images will be for validation'
    assert (files, parts) == ('Note: A note on the files.', 'Note: A note on the parts.')
    assert said({'train': one, 'val': one})[0] == 'data/cells: COCO JSON, 1 classes, parts train, val'


@pytest.mark.parametrize(
    ('count', 'words'),
    [(98, []), (97, ['Validation has only about 19 images, so AP will vary by several points between epochs.'])],
)
def test_few_images_of_validation(count, words):
    """A fifth of 98 images is 20, rounded."""
    images = [(9, 9)] * count
    assert doubts(all=content(dict(cat=20), sizes=images)) == words
    if words:
        part = content(dict(cat=20), sizes=images[:19])
        assert doubts(train=part, val=part) == [words[0].replace('about ', '')]


VAL = content(dict(cat=20), sizes=[(9, 9)] * 20)


@pytest.mark.parametrize(
    ('train', 'words'),
    [
        (content(dict(cat=10)), []),
        (content(dict(cat=9)), ["There are fewer than 10 boxes of 'cat': hardly enough"]),
        (content(dict(cat=0, dog=10)), ["Train has no box of 'cat', which cannot be learnt"]),
        (content(dict(cat=100)), []),
        (content(dict(cat=101)), ['An image has 101 objects, and at most 100 are detected in one']),
        (content(dict(cat=50), sizes=[(9, 4000)] * 30), []),
        (content(dict(cat=50), sizes=[(4001, 9)] * 30), ['The images are 4001 pixels long, and are made much smaller']),
    ],
)
def test_doubts(train, words):
    found = doubts(train=train, val=VAL)
    assert len(found) == len(words)
    assert all(line.startswith(start) for line, start in zip(found, words, strict=True)), found


def test_few_names():
    assert few(['a', 'b']) == "'a', 'b'"
    assert few(list('abcdefg')) == "'a', 'b', 'c', 'd', 'e' and 2 more"


def test_the_limits_that_a_model_has():
    crowded = content(dict(cat=101))
    (two_stages,), (one_stage,) = (doubts(model=model, train=crowded, val=VAL) for model in ('mask_rcnn', 'fcos'))
    assert two_stages.endswith('set roi_head.max_per_image and rpn_head.post_nms_test of the model to more.')
    assert one_stage.endswith('set bbox_head.max_per_image of the model to more.')
