import numpy as np
import pytest
from matplotlib.figure import Figure

from frdet.evaluation.backends import CocoEval
from frdet.visualization.report import figures
from frdet.visualization.report.run import read_run
from tests.visualization.report.made import FIRST, scalars, step


def test_ap_by_class_and_size():
    """The worst class below, none for a class without objects; sizes are means over the classes that have them."""
    precision = np.full((10, 101, 3, 4, 1), -1.0)  # IoU, recall, class, size, detections
    precision[:, :, 0, :2] = 0.75  # all and small
    precision[:, :, 2, :3] = 0.25  # and medium
    precision[:, :, 2, 1] = 0.5
    evaluation = CocoEval(precision, np.zeros((10, 3, 4, 1)), np.linspace(0.5, 0.95, 10), [1, 2, 3])
    plot = figures.classes(evaluation, ['cat', 'none', 'dog'])
    axes = Figure().subplots(plot.rows, plot.columns)
    plot.paint(axes)
    bars = [
        {label.get_text(): bar.get_width() for label, bar in zip(axis.get_yticklabels(), axis.patches, strict=True)}
        for axis in axes
    ]
    assert [list(bar) for bar in bars] == [['dog', 'cat'], ['medium', 'small', 'all']]
    assert bars[0] == pytest.approx({'dog': 0.25, 'cat': 0.75})
    assert bars[1] == pytest.approx({'medium': 0.25, 'small': (0.75 + 0.5) / 2, 'all': (0.75 + 0.25) / 2})


def test_level_lines_lie_inside(tmp_path):
    """A learning rate that never changes is drawn below the upper edge, and all axes begin at 0."""
    scalars(tmp_path / FIRST, [step(k, 4.0) for k in (1, 2, 3, 4)])
    plot = figures.curves(read_run(tmp_path))
    axes = Figure().subplots(plot.rows, plot.columns)
    plot.paint(axes)
    assert axes[1, 0].get_ylim() == pytest.approx((0, 0.0105))  # the rate is 0.01
    assert axes[0, 0].get_ylim() == pytest.approx((0, 4.2))
    assert axes[0, 1].get_ylim() == (0, 1)  # no validation yet
