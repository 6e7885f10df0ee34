import itertools
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from frdet.insight.ablation import plots
from frdet.insight.ablation.conclusions import Interval
from frdet.insight.plots import COLOURS
from tests.insight.ablation.made import conclude, difference, make_study


def painted(plot):
    figure = Figure(figsize=plot.size, layout='constrained')
    axes = figure.subplots(plot.rows, plot.columns)
    plot.paint(axes)
    return figure, np.atleast_1d(axes).ravel()


def lines(axis, marker):
    """Colour and place of the markers of one kind, from the top."""
    return [
        (line.get_color(), *(float(at) for at in line.get_xdata()))
        for line in axis.get_lines()
        if line.get_marker() == marker and len(line.get_xdata())
    ]


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path, ('base', 'giou', 'slow', 'same'))


#: Differences to the base: 0.1, 0.1, 0.1; -0.2, -0.2, -0.2; and 0.1, 0, -0.1.
VALUES = {
    'base': {0: 0.5, 1: 0.5, 2: 0.5},
    'giou': {0: 0.6, 1: 0.6, 2: 0.6},
    'slow': {0: 0.3, 1: 0.3, 2: 0.3},
    'same': {0: 0.6, 1: 0.5, 2: 0.4},
}


def test_forest(study):
    _, (axis,) = painted(plots.forest(study, conclude(study, VALUES)))
    green, red, grey = (COLOURS[name] for name in ('green', 'red', 'grey'))
    means, pairs = lines(axis, 'D'), lines(axis, 'o')
    assert [colour for colour, _ in means] == [green, red, grey]
    assert [at for _, at in means] == pytest.approx([0.1, -0.2, 0.0])
    assert [colour for colour, _ in pairs] == [green] * 3 + [red] * 3 + [grey] * 3
    assert [at for _, at in pairs] == pytest.approx([0.1] * 3 + [-0.2] * 3 + [0.1, 0.0, -0.1])
    texts = [text.get_text() for text in axis.texts]
    assert texts[:2] == ['← worse', 'better →']
    # Three pairs that differ by 0.1: 4.303 * 0.1 / sqrt(3) = 0.248.
    assert texts[-4:] == ['same', '+0.00 [−0.25, +0.25]', '3 pairs', 'not told apart yet: 4 more seeds']
    assert axis.get_xlabel() == 'coco/bbox_mAP: variant minus base'


def test_the_better_side_of_an_error(study):
    study = replace(study, less_is_better=True)
    _, (axis,) = painted(plots.forest(study, conclude(study, VALUES)))
    assert [text.get_text() for text in axis.texts[:2]] == ['← better', 'worse →']
    assert lines(axis, 'D')[0][0] == COLOURS['red']


def test_limits_by_hand():
    """An interval that goes on beyond the pairs by more than their width is cut, and gets arrows."""
    # 0 and the pairs take 0.1. The interval is 0.05 +- 12.706 * 0.05 = -0.585 to 0.685: 0.1 of it is shown on each
    # side, and 4% of the width of 0.3 as a margin.
    pairs = difference([0.0, 0.1])
    assert plots.limits([pairs]) == pytest.approx((-0.112, 0.212))
    # An interval over images is shown whole; the side without anything has a quarter of the width.
    one = difference([0.08])
    assert plots.limits([one], [{0: Interval(0.04, 0.1)}]) == pytest.approx((-0.025 - 0.005, 0.1 + 0.005))
    low, high = plots.limits([difference([0.0, 0.0])])
    assert low < 0 < high


def test_an_arrow_where_an_interval_goes_on(study):
    values = {'base': {0: 0.5, 1: 0.5}, 'giou': {0: 0.5, 1: 0.6}}
    _, (axis,) = painted(plots.forest(study, conclude(study, values)))
    low, high = axis.get_xlim()
    assert [at for _, at in lines(axis, '<') + lines(axis, '>')] == [low, high]
    _, (axis,) = painted(plots.forest(study, conclude(study, VALUES)))
    assert not lines(axis, '<') and not lines(axis, '>')


@pytest.mark.parametrize('count', [1, 20])
def test_texts_do_not_overlap(tmp_path, count):
    name = 'a_rather_long_name_of_a_variant_of_a_grid_{}'
    study = make_study(tmp_path, ('base', *map(name.format, range(count))))
    rng = np.random.default_rng(0)
    values = {variant: dict(enumerate(rng.normal(0.5, 0.01, 3))) for variant in study.variants}
    found = [
        replace(one, verdict='not told apart: more than 1000 seeds would be needed') for one in conclude(study, values)
    ]
    with matplotlib.rc_context({'font.size': 10}):
        figure, (axis,) = painted(plots.forest(study, found))
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in (*axis.texts, axis.xaxis.label, *axis.get_legend().texts)]
    assert len(boxes) == 4 * count + 5
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(min(box.x0, box.y0) >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert axis.get_window_extent(renderer).width > 0.35 * figure.bbox.width
    assert axis.texts[2].get_text() == 'a_rather_long_...nt_of_a_grid_0'  # two names of a grid differ at their ends


def test_bands_have_only_iterations_of_all_finished_runs():
    curves = plots.Curves([{10: 1.0, 20: 3.0, 30: 9.0}, {10: 2.0, 20: 5.0}], [{10: 7.0, 40: 8.0}])
    _, (axis,) = painted(plots.bands('base', {'base': plots.Curves([], []), 'giou': curves}))
    mean, unfinished = axis.get_lines()
    assert (list(mean.get_xdata()), list(mean.get_ydata())) == ([10, 20], [1.5, 4.0])
    assert (list(unfinished.get_xdata()), list(unfinished.get_ydata())) == ([10, 40], [7.0, 8.0])
    (band,) = axis.collections
    corners = {tuple(map(float, corner)) for corner in band.get_paths()[0].vertices}
    assert corners == {(10, 1), (10, 2), (20, 3), (20, 5)}


def test_parts_that_differ_most(study):
    classes = {f'class {k}': difference([0.01 * k, 0.01 * k], q=0.01 if k == 19 else 0.5) for k in range(20)}
    more = dict(sizes={'AP_s': difference([0.1, 0.1], q=0.05)}, classes=classes)
    plot = plots.parts(conclude(study, VALUES, **more))
    _, axes = painted(plot)
    names = [label.get_text() for label in axes[0].get_yticklabels()]
    assert names == ['AP_s', *(f'class {k}' for k in range(19, 11, -1))]
    blue, grey = COLOURS['blue'], COLOURS['grey']
    assert [colour for colour, _ in lines(axes[0], 'D')] == [blue, blue, *[grey] * 7]
    assert [axis.get_title() for axis in axes[:3]] == ['giou', 'slow', 'same'] and not axes[3].axison


def test_errors_beside_the_base(study):
    base, giou, *_ = conclude(study, VALUES)
    base, giou = replace(base, errors={'missed': 0.2, 'both': 0.1}), replace(giou, errors={'both': 0.05, 'missed': 0.3})
    _, (axis,) = painted(plots.errors(base, [giou]))
    assert [bar.get_width() for bar in axis.patches] == [0.2, 0.1, 0.3, 0.05]
    assert [label.get_text() for label in axis.get_yticklabels()] == ['missed', 'both']
