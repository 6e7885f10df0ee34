"""Ids mean nothing: whatever a tool wrote, the 12 figures are the same."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.test_coco_metric import BACKENDS, by_hand, drawn, evaluate, sample

#: Ways to write one number as an id; the last two are texts.
WAYS = {
    'as it is': lambda i: i,
    'from 0': lambda i: i - 1,
    'negative': lambda i: i - 10_000,
    'a time stamp': lambda i: 20_230_101_123_456_000 + i,
    'beyond a double': lambda i: 2**62 + i,
    'beyond 64 bits': lambda i: 2**70 + i,
    'float': float,
    'digits': lambda i: f'{i:012d}',
    'uuid': lambda i: f'9f2c-{i}-aa',
}
#: What an annotation's id may be in a file, by its number.
OWN = {
    'from 0': lambda i: i,
    'all the same': lambda i: 7,
    'per image': lambda i: i % 3,
    'negative': lambda i: -i,
    'huge': lambda i: 2**53 + i,
    'null': lambda i: None,
    'text': lambda i: f'a{i}',
    'partly absent': lambda i: i if i % 2 else 'absent',
    'absent': lambda i: 'absent',
}


def plain(seed=0):
    """A drawn set whose images and categories are numbered from 1, and no two scores are equal."""
    rng = np.random.default_rng(seed)
    truth, samples, classes = drawn(rng, num_images=8, num_classes=3)
    images = {image['id']: number for number, image in enumerate(truth['images'], start=1)}
    categories = {int(name.split()[1]): number for number, name in enumerate(classes, start=1)}
    for image in truth['images']:
        image['id'] = images[image['id']]
    for category in truth['categories']:
        category['id'] = categories[category['id']]
    for annotation in truth['annotations']:
        annotation['image_id'] = images[annotation['image_id']]
        annotation['category_id'] = categories[annotation['category_id']]
    for one in samples:
        one['img_id'] = images[one['img_id']]
        one['pred_instances']['scores'] += (
            one['pred_instances']['scores'].new_tensor(rng.random(len(one['pred_instances']['scores']))) / 100
        )
    return truth, samples, classes


def rewritten(content, samples, image_id, category_id, own_id):
    """The same set with other ids."""
    truth, samples = copy.deepcopy(content), copy.deepcopy(samples)
    for image in truth['images']:
        image['id'] = image_id(image['id'])
    for category in truth['categories']:
        category['id'] = category_id(category['id'])
    for number, annotation in enumerate(truth['annotations']):
        annotation.update(
            image_id=image_id(annotation['image_id']),
            category_id=category_id(annotation['category_id']),
            id=own_id(number),
        )
        if annotation['id'] == 'absent':
            del annotation['id']
    for one in samples:
        one['img_id'] = image_id(one['img_id'])
    return truth, samples


def figures_of(path, truth, samples, classes, backend):
    path.write_text(json.dumps(truth))
    return evaluate(path, samples, classes, backend=backend, classwise=False)


@pytest.mark.parametrize('backend', BACKENDS)
@given(data=st.data())
@settings(max_examples=20)
def test_no_id_changes_a_figure(tmp_path, backend, data):
    truth, samples, classes = plain(data.draw(st.integers(0, 3)))
    expected = figures_of(tmp_path / 'plain.json', truth, samples, classes, backend)
    order = [0, *data.draw(st.permutations(range(1, len(truth['images']) + 1)))]
    kinds = [0, *data.draw(st.permutations(range(1, len(classes) + 1)))]
    image_way, category_way = (WAYS[data.draw(st.sampled_from(sorted(WAYS)))] for _ in range(2))
    own = OWN[data.draw(st.sampled_from(sorted(OWN)))]
    other = rewritten(truth, samples, lambda i: image_way(order[i]), lambda i: category_way(kinds[i]), own)
    figures = figures_of(tmp_path / 'other.json', *other, classes, backend)
    # COCO adds up classes in the order of their ids: another order may round otherwise.
    assert figures == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('way', WAYS)
def test_results_have_the_ids_of_the_file(tmp_path, backend, way):
    truth = [dict(image_id=1, category_id=7, bbox=[10, 10, 40, 40])]
    path = by_hand(tmp_path, truth)
    content = json.loads(path.read_text())
    found = [sample(1, [[10, 10, 50, 50]], [0.5], [0])]
    other, found = rewritten(content, found, WAYS[way], WAYS[way], OWN['null'])
    path.write_text(json.dumps(other))
    out = tmp_path / 'results.json'
    evaluate(path, found, ('cat', 'dog'), backend=backend, outfile=str(out))
    (record,) = json.loads(out.read_text())
    assert (record['image_id'], record['category_id']) == (WAYS[way](1), WAYS[way](7))
    assert record['bbox'] == [10, 10, 40, 40] and type(record['image_id']) in (int, str)
