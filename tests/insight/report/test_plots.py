import csv

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from frdet.engine.hooks.work_folder import REPORT
from frdet.evaluation.backends import CocoEval
from frdet.insight.report import plots, write_files
from frdet.insight.report.run import read_run
from frdet.insight.store import SIZE_EDGES
from tests.insight.report.made import FIRST, make_run, scalars, step


def test_ap_by_class_and_size():
    """The worst class below, none for a class without objects; sizes are means over the classes that have them."""
    precision = np.full((10, 101, 3, 4, 1), -1.0)  # IoU, recall, class, size, detections
    precision[:, :, 0, :2] = 0.75  # all and small
    precision[:, :, 2, :3] = 0.25  # and medium
    precision[:, :, 2, 1] = 0.5
    evaluation = CocoEval(precision, np.zeros((10, 3, 4, 1)), np.linspace(0.5, 0.95, 10), [1, 2, 3])
    plot = plots.classes(evaluation, ['cat', 'none', 'dog'])
    axes = Figure().subplots(plot.rows, plot.columns)
    plot.paint(axes)
    bars = [
        {label.get_text(): bar.get_width() for label, bar in zip(axis.get_yticklabels(), axis.patches, strict=True)}
        for axis in axes
    ]
    assert [list(bar) for bar in bars] == [['dog', 'cat'], ['medium', 'small', 'all']]
    assert bars[0] == pytest.approx({'dog': 0.25, 'cat': 0.75})
    assert bars[1] == pytest.approx({'medium': 0.25, 'small': (0.75 + 0.5) / 2, 'all': (0.75 + 0.25) / 2})


@pytest.mark.parametrize('count', [1, 20, 21, 60, 100, 101, 1203, 2500])
def test_plots_of_many_classes_have_a_bounded_size(count):
    names = [f'class {k} with a name that is rather long' for k in range(count)]
    evaluation = CocoEval(
        np.full((2, 3, count, 4, 1), 0.5), np.zeros((2, count, 4, 1)), np.linspace(0.5, 0.95, 2), [*range(count)]
    )
    objects = {'classes': names, 'objects': [1] * count, 'sizes': [1] * (len(SIZE_EDGES) - 1), 'per_image': [1, 2]}
    matrix = np.eye(count + 1, dtype=int)
    for plot in (plots.confusion(matrix, names), plots.classes(evaluation, names), plots.labels(objects)):
        assert max(plot.size) <= 21  # inches of 100 pixels: 100 classes have 0.2 each
        axes = Figure().subplots(plot.rows, plot.columns)
        plot.paint(axes)
        for axis in np.ravel(axes):
            assert len(axis.get_yticks()) <= 101
            assert all(len(label.get_text()) <= 32 for label in axis.get_yticklabels())


def test_best_and_worst_classes(monkeypatch):
    """Of five, the class of AP 0.4 is neither among the two best nor the two worst."""
    monkeypatch.setattr(plots, 'MOST_CLASSES', 4)
    precision = np.ones((10, 101, 5, 4, 1)) * np.array([0.9, 0.4, 0.1, 0.7, 0.2])[:, None, None]
    plot = plots.classes(CocoEval(precision, np.zeros((10, 5, 4, 1)), np.linspace(0.5, 0.95, 10), [*range(5)]), 'abcde')
    axes = Figure().subplots(plot.rows, plot.columns)
    plot.paint(axes)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ['c', 'e', 'd', 'a']
    assert axes[0].get_title() == 'AP by class: the 2 best and 2 worst of 5'


def test_the_most_confused_classes(monkeypatch):
    """a and d are taken for each other 3 + 2 times, c for b once: a and d are shown, b and c are summed."""
    monkeypatch.setattr(plots, 'MOST_CLASSES', 4)
    matrix = np.array(
        [
            # a  b  c  d  e background
            [5, 0, 0, 3, 0, 1],
            [0, 7, 0, 0, 0, 9],
            [0, 1, 8, 0, 0, 9],
            [2, 0, 0, 6, 0, 0],
            [0, 0, 0, 0, 4, 0],
            [1, 9, 9, 0, 0, 0],
        ]
    )
    plot = plots.confusion(matrix, 'abcde')
    axis = Figure().subplots()
    plot.paint(axis)
    labels = ['a', 'd', 'all other classes', 'background']
    assert [label.get_text() for label in axis.get_xticklabels()] == labels
    assert [label.get_text() for label in axis.get_yticklabels()] == labels
    sums = np.array([[5, 3, 0, 1], [2, 6, 0, 0], [0, 0, 7 + 1 + 8 + 4, 18], [1, 0, 18, 0]])
    assert {(text.get_position()[::-1], text.get_text()) for text in axis.texts} == {
        ((row, column), str(sums[row, column])) for row, column in zip(*np.nonzero(sums), strict=True)
    }
    np.testing.assert_allclose(axis.images[0].get_array(), sums / sums.sum(axis=1, keepdims=True))
    assert axis.get_title() == 'The 2 of 5 classes that are confused most often'


def test_level_lines_lie_inside(tmp_path):
    """A learning rate that never changes is drawn below the upper edge, and all axes begin at 0."""
    scalars(tmp_path / FIRST, [step(k, 4.0) for k in (1, 2, 3, 4)])
    plot = plots.curves(read_run(tmp_path))
    axes = Figure().subplots(plot.rows, plot.columns)
    plot.paint(axes)
    assert axes[1, 0].get_ylim() == pytest.approx((0, 0.0105))  # the rate is 0.01
    assert axes[0, 0].get_ylim() == pytest.approx((0, 4.2))
    assert axes[0, 1].get_ylim() == (0, 1)  # no validation yet


def test_table_and_plots(tmp_path):
    work_dir = make_run(tmp_path)
    names = [
        'results.csv', 'curves.png', 'precision_recall.png', 'classes.png', 'confusion_matrix.png', 'errors.png',
    ]  # fmt: skip
    assert write_files(work_dir) == [work_dir / name for name in names]
    assert set(names) < set(REPORT)  # a new training moves them aside
    with open(work_dir / 'results.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['epoch'], row['iter'], float(row['loss']), row['memory']) for row in rows] == [
        ('1', '2', 3.5, '100'),
        ('2', '4', 2.25, ''),
        ('3', '6', 1.0, '120'),
    ]
    assert [float(row['coco/bbox_mAP']) for row in rows] == [0.1, 0.3, 0.2]
    for name in names[1:]:
        with Image.open(work_dir / name) as image:
            assert image.format == 'PNG' and min(image.size) > 200
            assert image.convert('RGB').getpixel((0, 0)) == (255, 255, 255)
            assert len(image.convert('RGB').getcolors(1 << 20)) > 20  # something is drawn


def test_training_without_validation(tmp_path):
    scalars(tmp_path / FIRST, [step(1, 4.0)])
    assert [path.name for path in write_files(tmp_path)] == ['results.csv', 'curves.png']
