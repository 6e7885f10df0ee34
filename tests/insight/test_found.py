"""The objects that validations found, kept over the pieces of a training."""

import json

import numpy as np
import pytest

from frdet.insight import store
from frdet.insight.errors import Detected, Objects, Results, read_results
from frdet.insight.found import FOUND, found_by, history, keep
from tests.insight.scene import A, F, G, scene


def results(chosen=slice(None), objects=slice(None)):
    """The scene with some of its detections and objects."""
    found, truth = scene()
    found, truth = Detected(*(column[chosen] for column in found)), Objects(*(column[objects] for column in truth))
    return Results([{}], ['cat', 'dog'], [1, 2], truth, found, [])


def test_found_at_the_best_f1():
    """Of six objects, A is found at 0.9, F at 0.3 and G at 0.2, each after errors: F1 is best at 0.2."""
    assert np.flatnonzero(found_by(results())).tolist() == [A, F, G]
    # Without those of F and G, F1 is best at 0.9.
    assert np.flatnonzero(found_by(results(slice(6)))).tolist() == [A]
    assert not found_by(results(slice(0))).any()


def test_a_detection_below_the_score_does_not_count():
    """Right, right, nine wrong, right: F1 is 4 / (2 + 3) after two, and 6 / (12 + 3) after all."""
    found, truth = scene()
    rows = [A, F, G]
    truth = Objects(*(column[rows] for column in truth))
    order = [0, 6, *[5] * 9, 7]
    found = Detected(*(column[order] for column in found))._replace(scores=np.linspace(0.9, 0.1, 12))
    assert found_by(Results([{}], ['cat', 'dog'], [1, 2], truth, found, [])).tolist() == [True, True, False]


def test_pieces_of_a_resumed_training(tmp_path):
    """The second piece repeats the validation of epoch 2; the one of epoch 3 was taken back by the resume."""
    first, second = tmp_path / 'a', tmp_path / 'b'
    first.mkdir(), second.mkdir()
    keep(first, results(slice(6)), step=1)
    keep(first, results(slice(0)), step=2)
    keep(first, results(slice(0)), step=3)
    keep(second, results(slice(6)), step=2)
    keep(second, results(), step=2)  # again
    truth = results().truth
    rows = history([first, tmp_path / 'gone', second], truth, [1, 2])
    assert [np.flatnonzero(row).tolist() for row in rows] == [[A], [A, F, G]]
    assert history([first], truth, [1, 2, 3]).sum(axis=1).tolist() == [1, 0, 0]
    assert history([], truth, [1]).shape == (0, len(truth.image))


def test_other_objects_and_broken_files(tmp_path):
    """What was kept about other boxes says nothing; a new validation replaces it."""
    keep(tmp_path, results(), step=1)
    moved = results()
    moved.truth.boxes[0, 0] += 1
    fewer = results(objects=slice(5))
    for other in (moved, fewer):
        assert len(history([tmp_path], other.truth, [1, 2])) == 0
    keep(tmp_path, fewer, step=2)
    assert history([tmp_path], fewer.truth, [1, 2]).shape == (1, 5)
    for content in (b'', b'PK\x03\x04', b'nonsense'):
        (tmp_path / FOUND).write_bytes(content)
        assert len(history([tmp_path], fewer.truth, [1, 2])) == 0
    keep(tmp_path, fewer, step=3)
    assert len(history([tmp_path], fewer.truth, [3])) == 1


CONTENT = {
    'images': [dict(id=k, file_name=f'{k}.png', width=1000, height=1000) for k in (1, 2)],
    'categories': [dict(id=1, name='cat')],
    'annotations': [
        dict(id=name, image_id=image, category_id=1, bbox=[100 * k, 0, 50, 50])
        for k, (name, image) in enumerate([(31, 1), (8, 2), (15, 1)])
    ],
}


@pytest.mark.parametrize(('has_ids', 'names'), [(True, ['31', '8', '15']), (False, ['1', '1', '2'])])
def test_names_of_annotations(tmp_path, has_ids, names):
    """Their ids, or their numbers in their image where frdet gave the ids."""
    (tmp_path / 'truth.json').write_text(json.dumps(CONTENT))
    (tmp_path / store.DETECTIONS).write_text('[]')
    assert read_results(tmp_path / 'truth.json', tmp_path / store.DETECTIONS, has_ids=has_ids).names == names
    facts = store.RunFacts('', [], 1, ['cat'], str(tmp_path / 'truth.json'), None, [2], {}, has_ids)
    assert store.load_results(facts, tmp_path).names == names[1:2]
    assert store.load_results(facts._replace(ann_file=None), tmp_path) is None
