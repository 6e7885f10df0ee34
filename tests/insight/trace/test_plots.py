import pytest
from matplotlib.figure import Figure

from frdet.insight.trace.model import Summary
from frdet.insight.trace.plots import funnel, gains
from tests.insight.trace.made import HELPS, make_trace


def test_the_plot(tmp_path):
    """The bars: still on their way, and lost, of every stage; the last is that of the found objects."""
    axis = Figure().subplots()
    funnel(Summary.load(make_trace(tmp_path))).paint(axis)
    assert [(bar.get_x(), bar.get_width()) for bar in axis.patches] == [
        (0, 19), (19, 1), (0, 18), (18, 1), (0, 18), (18, 0), (0, 16), (16, 2), (0, 13), (13, 3), (0, 12), (12, 1),
        (0, 12),
    ]  # fmt: skip


def test_the_plot_of_gains():
    axis = Figure().subplots()
    gains(HELPS).paint(axis)
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ['background\nscore_thr: 0.05 -> 0.01', 'proposal NMS\nnms_iou_thr: 0.7 -> 0.8']
    assert [line.get_xdata()[0] for line in axis.lines[:4:2]] == pytest.approx([-1, 5])
    assert [line.get_marker() for line in axis.lines[1:4:2]] == ['o', 'D']  # within noise, and not
