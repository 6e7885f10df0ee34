"""The page of a run made by hand, what it says is missing, and its filters."""

import csv
import re

import numpy as np
import pytest

from frdet.insight import store
from frdet.insight.errors import KINDS, Results
from frdet.insight.found import keep
from frdet.insight.report import write_page
from frdet.insight.report.pictures import COLOUR_OF, COLOURS, shown
from frdet.insight.report.run import analyse, read_run
from frdet.insight.report.training_page import duration
from tests.insight.report.made import CLASSES, FIRST, SECOND, make_run, scalars, step, validation
from tests.insight.scene import DETECTIONS, MISSED, B, C, D, scene


def table_of(content, caption):
    """Cells of the body of a table."""
    part = content[content.index(f'>{caption}</p>') :]
    body = part[part.index('<tbody>') : part.index('</tbody>')]
    return [re.findall(r'<td[^>]*>(.*?)</td>', row) for row in body.split('</tr>') if '<td' in row]


def test_a_missed_object_does_not_look_right():
    assert COLOUR_OF['missed'] == 'red'
    assert len(set(COLOURS)) == len(COLOURS) == len(COLOUR_OF)


def test_what_it_says(tmp_path):
    page = write_page(make_run(tmp_path), tmp_path / 'page.html')
    content = page.read_text()
    assert 'No warnings.' in content
    validations = table_of(content, 'Validation')
    assert validations[0] == ['coco/bbox_mAP', '0.3', '0.2', 'AP, mean over IoU 0.50, 0.55, ... 0.95']
    assert validations[2][1:3] == ['–', '–']
    kinds = {row[0]: row[1:3] for row in table_of(content, 'Kinds of errors')}
    assert {row[0] for row in kinds.values()} == {'1'}  # one of each
    assert kinds['both'][1] == '0.0833'  # (1/2 - 1/3) / 2, see the tests of the errors
    confusions = table_of(content, 'The most frequent confusions')
    assert ['cat', 'd&lt;b&gt;og', '1'] in confusions
    by_epoch = table_of(content, 'Means of the logged numbers, with the validations')
    assert by_epoch[2] == ['3', '6', '0.03', '1', '0.5', '2', '120', '0.2', '0.4', '–']
    classes = table_of(content, 'Classes, the best first')
    assert [row[:2] for row in classes] == [['d&lt;b&gt;og', '1'], ['cat', '5']]
    assert 'python tools/train.py made.py' in content and 'lr = 0.01' in content and '2.14.1' in content
    assert content.count('class="picture"') == 2  # the first image has errors, the second none; and a batch


def test_masks_of_objects_and_detections(tmp_path):
    """The left half of each box of 100 pixels, in a picture of 480 pixels for 1000: columns 0 to 23, rows 0 to 47."""
    content = write_page(make_run(tmp_path, masks=True), tmp_path / 'page.html').read_text()
    marks = [m for m in content.split('<g class="mark ')[1:] if 'tip="cat 0.90' in m or 'tip="cat: annotated' in m]
    corners = [sorted(re.search(r'<path d="M(.*?)Z"', mark)[1].split('L')) for mark in marks]
    first = ['0.5 0.5', '0.5 47.5', '23.5 0.5', '23.5 47.5']
    assert len(marks) == 6 and corners.count(first) == 2
    assert '/><path' not in write_page(make_run(tmp_path, name='plain'), tmp_path / 'page.html').read_text()


def test_metric_values_of_masks(tmp_path):
    more = [{**validation(3, 0.2), 'coco/segm_mAP': 0.15, 'coco/segm_AR@10': 0.25, 'coco/segm_other': 1.0}]
    content = write_page(make_run(tmp_path, more=more), tmp_path / 'page.html').read_text()
    words = {row[0]: row[-1] for row in table_of(content, 'Validation')}
    assert words['coco/segm_mAP'] == 'AP, mean over IoU 0.50, 0.55, ... 0.95, by the IoU of masks'
    assert words['coco/segm_AR@10'] == 'recall with 10 detections an image, by the IoU of masks'
    assert words['coco/segm_other'] == '' and words['coco/bbox_mAP_50'] == 'AP at IoU 0.50'


@pytest.mark.parametrize(
    ('remove', 'words', 'gone'),
    [
        ([f'run/{SECOND}/{store.DETECTIONS}', f'run/{FIRST}/{store.DETECTIONS}'], 'No detections', 'Errors'),
        (['data/truth.json'], 'truth.json cannot be read', 'Errors'),
        (['data/1.png', 'data/2.png'], 'Images cannot be shown', None),
        ([f'run/{SECOND}/{store.RUN}', f'run/{FIRST}/{store.RUN}'], f'No {store.RUN}', 'Labels'),
        ([f'run/{SECOND}/scalars.json', f'run/{FIRST}/scalars.json'], 'No losses were logged', 'Curves'),
        ([f'run/{SECOND}/config.py', f'run/{FIRST}/config.py', f'run/{SECOND}/{store.EVALUATION}'], None, None),
    ],
)  # fmt: skip
def test_what_is_missing(tmp_path, remove, words, gone):
    work_dir = make_run(tmp_path)
    for name in remove:
        (tmp_path / name).unlink(missing_ok=True)
    content = write_page(work_dir, tmp_path / 'page.html').read_text()
    assert (words is None and 'No warnings.' in content) or words in content
    assert 'Settings</a>' in content
    assert gone is None or f'>{gone}</a>' not in content


def test_likely_label_errors(tmp_path):
    """Of the scene: two of four other cats are found; the best detections around C and D score 0.6 and 0.5."""
    work_dir = make_run(tmp_path)
    results = read_run(work_dir).analysis.results
    for step_, folder in ((1, FIRST), (2, FIRST), (3, FIRST), (3, SECOND)):
        keep(work_dir / folder, results, step=step_)
    content = write_page(work_dir, tmp_path / 'page.html').read_text()
    assert 'Annotations that none of 3 validations found' in content
    with open(tmp_path / 'label_errors.csv', newline='') as file:
        rows = [
            (row['kind'], row['annotation_ids'], row['suggested_class'], row['score']) for row in csv.DictReader(file)
        ]
    assert rows == [
        ('not annotated', '', 'cat', '0.4'),
        ('another class', str(B + 1), CLASSES[1], '0.7'),
        ('never found', str(D + 1), '', '0.25'),
        ('never found', str(C + 1), '', '0.2'),
    ]


def test_unfinished_run(tmp_path):
    scalars(tmp_path / FIRST, [step(1, 4.0)])
    content = write_page(tmp_path, tmp_path / 'page.html').read_text()
    for words in ('No validation was logged', 'No detections', f'No {store.RUN}', 'Neither the command nor the config'):
        assert words in content
    assert 'Losses, learning rate' in content


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ("train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)", None),
        ("train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12)", 'iteration 6 of 24'),  # two an epoch
    ],
)
def test_a_run_that_is_not_at_its_end(tmp_path, config, expected):
    content = write_page(make_run(tmp_path, config=config), tmp_path / 'page.html').read_text()
    assert ('has not come to its end' in content) == bool(expected)
    assert expected is None or expected in content


@pytest.mark.parametrize(('planned', 'is_told'), [(6, False), (15, False), (16, True)])
def test_without_epochs_the_last_steps_are_not_logged(tmp_path, planned, is_told):
    """The logger writes every 10th step: after the 6th, 15 may be the end."""
    scalars(tmp_path / FIRST, [step(3, 4.0), step(6, 3.0)])
    (tmp_path / FIRST / 'config.py').write_text(f'train_cfg = dict(max_iters={planned})')
    content = write_page(tmp_path, tmp_path / 'page.html').read_text()
    assert (f'iteration 6 of {planned}' in content) == is_told


@pytest.mark.parametrize(
    ('seconds', 'text'), [(0.4, '0 s'), (59.6, '1 min 0 s'), (200, '3 min 20 s'), (7500, '2 h 5 min')]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_what_a_picture_shows():
    """F1 is best at the least score, so that all detections are shown."""
    found, truth = scene()
    kind, missed = shown(analyse(Results([{}], list(CLASSES), [1, 2], truth, found, [])))
    assert [(*KINDS, None)[k] for k in kind] == [row[4] for row in DETECTIONS]
    assert np.flatnonzero(missed).tolist() == MISSED


def test_in_a_browser(browser, tmp_path):
    page = write_page(make_run(tmp_path), tmp_path / 'page.html')
    browser.check(page)
    browser.open(page)
    # The three right detections are hidden at first; a dog is taken for a cat, and a dog overlaps a cat in part.
    kinds = "return [...document.querySelectorAll('.mark:not([hidden])')].map(e => JSON.parse(e.dataset.tags).error)"
    assert sorted(browser.run(kinds)) == ['background', 'both', 'classification', 'duplicate', 'localisation', 'missed']
    browser.find('input[value=duplicate]').click()
    browser.find('input[value=background]').click()
    assert sorted(browser.run(kinds)) == ['both', 'classification', 'localisation', 'missed']
    browser.find('input[value=cat]').click()
    assert sorted(browser.run(kinds)) == ['both', 'classification']
    browser.find('input[value=right]').click()
    assert sorted(browser.run(kinds)) == ['both', 'classification', 'right']
    browser.find('input[value=annotated]').click()  # the dog
    assert sorted(browser.run(kinds)) == ['annotated', 'both', 'classification', 'right']
    browser.find('input[value=annotated]').click()
    browser.run("document.querySelector('svg.picture').focus()")
    browser.press('\ue014')  # arrow right
    assert browser.find('#tip').text.startswith('d<b>og 0.')
    # An image without anything to see goes, and comes back.
    every = browser.find('#s7 .every')
    assert (every.text, browser.count('#s7 figure')) == ('none', 1)
    every.click()
    assert (every.text, browser.count('#s7 figure'), browser.count('#s7 input:checked')) == ('all', 0, 1)
    every.click()
    assert (every.text, browser.count('#s7 figure')) == ('none', 1)
