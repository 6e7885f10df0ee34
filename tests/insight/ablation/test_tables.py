import csv
import io
import math

import pytest

from frdet.apis.ablation.study import Study
from frdet.errors import ConfigError
from frdet.insight.ablation.conclusions import Conclusion, Difference, Interval
from frdet.insight.ablation.tables import best_variant, latex, main_table, markdown, printed, remarks, write_tables

METRIC = 'coco/bbox_mAP'


def study_of(root, *variants, seeds=(0, 1), **options):
    return Study(root, variants, seeds, **options)


def told(by_seed, interval=None, q=None, seeds=None):
    mean = sum(by_seed.values()) / len(by_seed)
    return Difference(by_seed, mean, 0.01, Interval(*interval) if interval else None, q, q, seeds)


@pytest.fixture
def two(tmp_path):
    """A whole study of a base and a variant."""
    study = study_of(tmp_path, 'base', 'gi_ou|2')
    costs = dict(seconds=0.25, hours=0.0123, memory=1888.4, params=1734133, flops=814768640)
    difference = told({0: 0.04, 1: 0.06}, (-0.077, 0.177), 0.126, 3)
    conclusions = [
        Conclusion('base', {0: 0.3, 1: 0.31}, 0.305, 0.00707, **costs),
        Conclusion('gi_ou|2', {0: 0.34, 1: 0.37}, 0.355, 0.0212, difference=difference,
                   verdict='not told apart yet: 1 more seed', over_images=Interval(0.01, 0.08), **costs),
    ]  # fmt: skip
    return study, conclusions


@pytest.fixture
def partial(tmp_path):
    """Three variants, of whose nine runs four are finished."""
    study = study_of(tmp_path, 'base', 'a', 'b', seeds=(0, 1, 2))
    return study, [
        Conclusion('base', {0: 0.3, 2: 0.3}, 0.3, 0.0, missing={'base/seed_1': 'stopped before its end: a_b {\nx'}),
        Conclusion('a', {0: 0.4, 2: 0.4}, 0.4, 0.0, missing={'a/seed_1': 'is running'},
                   difference=told({0: 0.1, 2: 0.1}, (0.1, 0.1), 0.0), verdict='better', notes=['a/seed_0: a doubt']),
        Conclusion('b', {}, math.nan, math.nan, missing={f'b/seed_{k}': 'has not begun' for k in range(3)},
                   verdict='too few runs: no seed is finished in both'),
    ]  # fmt: skip


def test_main_table(two):
    head, rows = main_table(*two)
    costs = ['0.25', '0.0123', '1,888', '1.73', '0.81']
    assert head == [
        'variant', METRIC, 'seeds', 'difference', '95%, seeds', '95%, images', 'verdict',
        's / iteration', 'hours', 'memory, MB', 'parameters, M', 'GFLOPs',
    ]  # fmt: skip
    assert rows == [
        ['base', '0.3050 ± 0.0071', '2 of 2', '–', '–', '–', '–', *costs],
        ['gi_ou|2', '0.3550 ± 0.0212', '2 of 2', '+0.0500', '[-0.0770, +0.1770]', '[+0.0100, +0.0800]',
         'not told apart yet: 1 more seed', *costs],
    ]  # fmt: skip


def test_incomplete_study(partial):
    """Columns without a value are left out; several variants have q; seeds are named where they are not all."""
    head, rows = main_table(*partial)
    assert head == ['variant', METRIC, 'seeds', 'difference', '95%, seeds', 'q', 'verdict']
    assert rows == [
        ['base', '0.3000 ± 0.0000', '2 of 3: 0, 2', '–', '–', '–', '–'],
        ['a', '0.4000 ± 0.0000', '2 of 3: 0, 2', '+0.1000 (seeds 0, 2)', '[+0.1000, +0.1000]', '< 0.001', 'better'],
        ['b', '–', '0 of 3', '–', '–', '–', 'too few runs: no seed is finished in both'],
    ]


def test_remarks_name_what_is_missing(partial):
    said = remarks(*partial)
    assert said[-5:] == [
        f'The means of {METRIC} are of different seeds: compare the differences, which are of pairs, instead.',
        'Missing: base/seed_1 (stopped before its end: a_b { x)',
        'Missing: a/seed_1 (is running)',
        'Missing: b/seed_0, b/seed_1, b/seed_2 (has not begun)',
        'a/seed_0: a doubt',
    ]


def test_remarks_explain_the_columns(two, partial, tmp_path):
    starts = [one.partition(':')[0] for one in remarks(*two)]
    assert starts == [METRIC, '95%, seeds', '95%, images']
    assert '(500 bootstrap samples of the images)' in remarks(*two)[2]
    assert [one.partition(':')[0] for one in remarks(*partial)][:3] == [METRIC, '95%, seeds', 'q']
    nothing = study_of(tmp_path, 'base', 'a', less_is_better=True)
    empty = [Conclusion(name, {}, math.nan, math.nan) for name in nothing.variants]
    (only,) = remarks(nothing, empty)
    assert only.endswith('over their seeds; less is better.')


def test_terminal(two):
    lines = printed(*two).splitlines()
    assert 'hours' not in lines[1] and 'verdict' in lines[1]
    assert 'not told apart yet' in lines[4]
    assert lines[-1].startswith('95%, images')


def test_markdown(two):
    head, line, base, other, *rest = markdown(*two).splitlines()
    assert head.startswith(r'| variant | coco/bbox\_mAP | seeds |')
    assert line == '| ' + ' | '.join(['---'] * 12) + ' |'
    assert other.startswith(r'| gi\_ou\|2 | 0.3550 ± 0.0212 |')
    assert base.replace(r'\|', '').count('|') == other.replace(r'\|', '').count('|') == 13
    assert rest[0] == '' and all(one.startswith('- ') for one in rest[1:])


def test_csv(two, partial, tmp_path):
    write_tables(*two, tmp_path)
    base, other = csv.DictReader(io.StringIO((tmp_path / 'ablation.csv').read_text()))
    assert (base['seed_0'], base['seed_1'], base['mean']) == ('0.3', '0.31', '0.305')
    assert base['difference_mean'] == base['seeds_low'] == base['verdict'] == ''
    assert (other['variant'], other['pairs'], other['difference_mean']) == ('gi_ou|2', '2', '0.05')
    assert [other[name] for name in ('seeds_low', 'seeds_high', 'images_low', 'images_high')] == [
        '-0.077', '0.177', '0.01', '0.08',
    ]  # fmt: skip
    assert (other['q'], other['seeds_to_tell'], other['flops']) == ('0.126', '3', '814768640')
    write_tables(*partial, tmp_path)
    *_, last = csv.DictReader(io.StringIO((tmp_path / 'ablation.csv').read_text()))
    assert [last[name] for name in ('seed_0', 'seed_2', 'mean', 'spread', 'pairs')] == [''] * 5
    assert last['missing'] == 'b/seed_0: has not begun; b/seed_1: has not begun; b/seed_2: has not begun'


def test_latex(two, partial):
    lines = latex(*two).splitlines()
    table = lines[lines.index(r'\begin{tabular}{lrrrrrrrrrrr}') :]
    assert [table[1], table[3], table[6], table[7]] == [r'\toprule', r'\midrule', r'\bottomrule', r'\end{tabular}']
    assert table[2].startswith(r'variant & coco/bbox\_mAP & seeds & difference & 95\%, seeds & ')
    assert table[4].startswith(r'base & 0.3050 $\pm$ 0.0071 & 2 of 2 & -- & ')
    assert r'gi\_ou|2 & 0.3550 $\pm$ 0.0212 & 2 of 2 & +0.0500 & {[}$-$0.0770, +0.1770] & {[}+0.0100' in table[5]
    assert {line.count('&') for line in (table[2], *table[4:6])} == {11}
    comments = latex(*partial).partition(r'\begin')[0].splitlines()
    assert all(line.startswith('% ') for line in comments)
    assert '$<$ 0.001' in latex(*partial)


def values_of(tmp_path, rows, **options):
    study = study_of(tmp_path, *rows, seeds=(0, 1, 2), **options)
    return study, [Conclusion(name, dict(enumerate(of)), sum(of) / 3, 0.01) for name, of in rows.items()]


# Differences c - b: 0.020, 0.021, 0.022, interval 0.021 +- 4.30 * 0.001 / sqrt 3, excludes 0.
TOLD = {'a-1': (0.30, 0.31, 0.32), 'b': (0.31, 0.319, 0.328), 'c': (0.33, 0.34, 0.35)}
# Differences c - b: -0.01, 0.01, 0.03, whose interval includes 0.
NOT_TOLD = {**TOLD, 'b': (0.34, 0.33, 0.32)}


def test_best_is_told_apart_from_every_row(tmp_path):
    assert best_variant(*values_of(tmp_path, TOLD)) == 'c'
    assert best_variant(*values_of(tmp_path, NOT_TOLD)) is None
    assert best_variant(*values_of(tmp_path, TOLD, less_is_better=True)) == 'a-1'
    assert best_variant(*values_of(tmp_path, {'b': NOT_TOLD['b'], 'c': TOLD['c']}, less_is_better=True)) is None
    assert best_variant(*values_of(tmp_path, {'a': (0.3, 0.3, 0.3)})) is None
    study, conclusions = values_of(tmp_path, TOLD)
    rows = [line for line in latex(study, conclusions).splitlines() if r'\pm' in line and not line.startswith('%')]
    assert [r'\textbf' in line for line in rows] == [False, False, True]
    assert rows[0].startswith('a-1 & ')
    assert rows[2].startswith(r'c & \textbf{0.3400 $\pm$ 0.0100} & ')
    assert 'textbf' not in latex(*values_of(tmp_path, NOT_TOLD))


def test_folder_that_is_gone(two, tmp_path):
    with pytest.raises(ConfigError, match=r'ablation\.md cannot be written \(No such file or directory\)'):
        write_tables(*two, tmp_path / 'gone')
