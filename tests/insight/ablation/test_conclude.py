import json
import os
import statistics

import numpy as np
import pytest

from frdet.insight import store
from frdet.insight.ablation import outcomes
from frdet.insight.ablation.conclude import conclude
from frdet.insight.errors import KINDS
from tests.insight.ablation.studies import CLASSES, detect, evaluate, finish, make_study, write_truth
from tests.insight.report.made import FIRST

JITTER = {'base': 0.12, 'giou': 0.06}
METRIC = 'coco/bbox_mAP'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A study with all runs: root, study, logged metric values of each run, conclusions."""
    root = tmp_path_factory.mktemp('whole')
    study, truth = make_study(root, seeds=(0, 1, 2)), write_truth(root)
    logged = {
        (variant, seed): finish(study, variant, seed, truth, jitter=jitter, memory=(100, 200 + 50 * seed, 200))
        for variant, jitter in JITTER.items()
        for seed in study.seeds
    }
    return root, study, logged, conclude(study)


def test_values_are_of_the_last_validation(whole):
    _, study, logged, (base, giou) = whole
    assert (base.variant, giou.variant) == study.variants
    for one in (base, giou):
        expected = [logged[one.variant, seed][METRIC] for seed in study.seeds]
        assert one.values == dict(enumerate(expected))
        assert (one.mean, one.spread) == pytest.approx((statistics.fmean(expected), statistics.stdev(expected)))
        assert not one.missing and not one.notes
    assert (base.difference, base.verdict, base.images, base.over_images) == (None, '', {}, None)
    assert giou.difference.mean == pytest.approx(giou.mean - base.mean)
    assert giou.verdict == 'better'


def test_values_by_size(whole):
    """From the log; small objects are in half of the images only, all have a value."""
    _, study, logged, (base, giou) = whole
    assert list(giou.sizes) == ['AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l'] and not base.sizes
    for name, end in (('AP50', '50'), ('AP_s', 's'), ('AP_l', 'l')):
        values = [[logged[variant, seed][f'{METRIC}_{end}'] for seed in study.seeds] for variant in study.variants]
        assert list(giou.sizes[name].by_seed.values()) == pytest.approx(np.subtract(values[1], values[0]).tolist())


def test_values_by_class(whole):
    """COCO's evaluation of one class alone."""
    root, _, _, (_, giou) = whole
    assert tuple(giou.classes) == CLASSES
    for seed, found in giou.classes['dog'].by_seed.items():
        ap = []
        for jitter in JITTER.values():
            precision = evaluate(root / 'truth.json', detect(root / 'truth.json', seed, jitter)).evaluation.precision
            ap.append(precision[:, :, CLASSES.index('dog'), 0, -1].mean())
        assert found == pytest.approx(ap[1] - ap[0], abs=1e-6)


def test_q_is_corrected_over_sizes_and_classes_together(whole):
    *_, (_, giou) = whole
    every = [*giou.sizes.values(), *giou.classes.values()]
    assert len(every) == 7
    largest = max(every, key=lambda one: one.p)
    least = min(every, key=lambda one: one.p)
    assert largest.q == largest.p
    assert least.p < least.q <= 7 * least.p


def test_intervals_over_images(whole):
    """Percentiles of the differences; a sample of the mean of the pairs is the mean of their samples."""
    root, study, _, (_, giou) = whole
    sampled = {
        (variant, seed): json.loads((study.folder(variant) / f'seed_{seed}.validation.json').read_text())['found'][
            'sampled'
        ]
        for variant in study.variants
        for seed in study.seeds
    }
    pairs = [np.subtract(sampled['giou', seed], sampled['base', seed]) for seed in study.seeds]
    assert {len(one) for one in pairs} == {41}
    assert [one[0] for one in pairs] == pytest.approx(list(giou.difference.by_seed.values()))
    for seed, one in enumerate(pairs):
        assert giou.images[seed] == pytest.approx(np.percentile(one[1:], (2.5, 97.5)))
    mean = (pairs[0] + pairs[1] + pairs[2]) / 3
    assert giou.over_images == pytest.approx(np.percentile(mean[1:], (2.5, 97.5)))
    assert giou.over_images.low < giou.difference.mean < giou.over_images.high


def test_costs(whole):
    *_, (base, _) = whole
    assert (base.seconds, base.hours, base.memory, base.params) == (
        0.25,
        pytest.approx(1 / 3600),
        300,
        1000,
    )  # MB of seed 2
    assert base.flops is None  # there is no config
    assert tuple(base.errors) == KINDS
    assert base.errors['localisation'] > 0


def test_made_again_it_is_read(whole, monkeypatch):
    _, study, _, conclusions = whole
    monkeypatch.setattr(outcomes, '_analyse', None)
    assert conclude(study) == conclusions


def test_analysed_again_after_a_change(tmp_path, monkeypatch):
    study, truth = make_study(tmp_path), write_truth(tmp_path)
    for variant in study.variants:
        finish(study, variant, 0, truth, jitter=JITTER[variant])
    conclude(study)
    analysed = []
    real = outcomes._analyse
    monkeypatch.setattr(outcomes, '_analyse', lambda study, run, *rest: analysed.append(run) or real(study, run, *rest))
    detections = study.job('giou', 0).work_dir / FIRST / store.DETECTIONS
    os.utime(detections, (1, 1))
    conclude(study)
    assert [run.work_dir for run in analysed] == [study.job('giou', 0).work_dir]


def test_states_of_runs(tmp_path):
    study, truth = make_study(tmp_path, seeds=(0, 1, 2, 3)), write_truth(tmp_path)
    finish(study, 'base', 0, truth)
    finish(study, 'base', 1, truth)
    finish(study, 'giou', 0, truth, jitter=0.06)
    stopped, silent = study.job('giou', 1), study.job('giou', 2)
    stopped.output.write_text('epoch 1\nTraceback:\n\nRuntimeError: out of | memory\n')
    silent.work_dir.mkdir()
    base, giou = conclude(study)
    assert list(base.values) == [0, 1] and list(giou.values) == [0]
    assert base.missing == {'base/seed_2': 'has not begun', 'base/seed_3': 'has not begun'}
    assert giou.missing == {
        'giou/seed_1': 'stopped before its end: epoch 1 / Traceback: / RuntimeError: out of | memory',
        'giou/seed_2': 'stopped before its end, and printed nothing',
        'giou/seed_3': 'has not begun',
    }
    assert list(giou.difference.by_seed) == [0]
    assert giou.verdict == 'too few runs: one pair has no interval, two have'
    assert list(giou.images) == [0] and giou.over_images == giou.images[0]


def test_study_that_has_not_begun(tmp_path):
    base, giou = conclude(make_study(tmp_path))
    assert not base.values and len(base.missing) == 2
    assert (giou.difference, giou.verdict) == (None, 'too few runs: no seed is finished in both')
    assert (giou.seconds, giou.hours, giou.memory, giou.params) == (None, None, 700.0, 1000)


@pytest.mark.parametrize('values', [{METRIC: -1.0}, {'coco/bbox_mAP_50': 0.3}])
def test_finished_without_a_value(tmp_path, values):
    """COCO's -1 is no number."""
    study, truth = make_study(tmp_path), write_truth(tmp_path)
    finish(study, 'base', 0, truth, values=values)
    base, _ = conclude(study)
    assert base.missing['base/seed_0'] == f'is finished, but its last validation has no value of {METRIC}'
    assert not base.values


def test_metric_of_another_kind(tmp_path):
    """It has neither sizes nor samples of images."""
    study, truth = make_study(tmp_path, metric='mine/loss', less_is_better=True), write_truth(tmp_path)
    for variant, values in {'base': (0.5, 0.6), 'giou': (0.4, 0.49)}.items():
        for seed, value in enumerate(values):
            finish(study, variant, seed, truth, values={'mine/loss': value})
    _, giou = conclude(study)
    assert giou.difference.by_seed == pytest.approx({0: -0.1, 1: -0.11})
    assert giou.verdict == 'better'
    assert not giou.sizes and not giou.images and not giou.notes


def test_log_and_detections_that_differ(tmp_path):
    """The pair has a difference, and no interval over images; so the mean of all pairs has none."""
    study, truth = make_study(tmp_path), write_truth(tmp_path)
    for variant in study.variants:
        for seed in study.seeds:
            finish(study, variant, seed, truth)
    finish(study, 'giou', 0, truth, values={METRIC: 0.123})
    _, giou = conclude(study)
    assert list(giou.difference.by_seed) == [0, 1]
    assert list(giou.images) == [1] and giou.over_images is None
    (note,) = giou.notes
    assert 'giou/seed_0: no interval over images: the detections in ' in note
    assert 'of coco/bbox_mAP, and the log says 0.1230: were files of the run or its annotations changed?' in note


def test_few_detections_of_an_image_count(tmp_path):
    """As in the config of the run: with one detection of a class and image the values are lower."""
    study, truth = make_study(tmp_path), write_truth(tmp_path)
    for variant in study.variants:
        few = finish(study, variant, 0, truth, max_dets=(1, 1, 1))
        assert few[METRIC] < evaluate(truth, detect(truth, 0, 0.1)).results['bbox_mAP']
    _, giou = conclude(study)
    assert list(giou.images) == [0] and not giou.notes


def test_first_of_two_metrics_with_one_name(tmp_path):
    """The errors and classes are of the first one, so the sizes are too."""
    study, truth = make_study(tmp_path, bootstrap=0), write_truth(tmp_path)
    for variant, ap50 in {'base': 0.5, 'giou': 0.7}.items():
        finish(study, variant, 0, truth, values={METRIC: 0.3, f'{METRIC}_50': ap50, 'other/bbox_mAP_50': 0.1})
    _, giou = conclude(study)
    assert giou.sizes['AP50'].by_seed == pytest.approx({0: 0.2})


def test_other_validation_images(tmp_path):
    study, truth = make_study(tmp_path), write_truth(tmp_path)
    (tmp_path / 'other').mkdir()
    other = write_truth(tmp_path / 'other', images=12)
    for seed in study.seeds:
        finish(study, 'base', seed, truth)
        finish(study, 'giou', seed, other)
    _, giou = conclude(study)
    assert giou.notes == [
        'giou/seed_0, giou/seed_1: validated on other images or classes than base: these cannot be compared'
    ]
    assert not giou.images and giou.over_images is None


def test_without_samples(tmp_path):
    study, truth = make_study(tmp_path, bootstrap=0), write_truth(tmp_path)
    for variant in study.variants:
        finish(study, variant, 0, truth)
    _, giou = conclude(study)
    assert not giou.images and not giou.notes and giou.classes


def test_several_variants_are_corrected(tmp_path):
    """Two p values: the smaller one is doubled, unless the larger one is smaller than that."""
    study, truth = (
        make_study(tmp_path, variants=('base', 'a', 'b'), seeds=(0, 1, 2), bootstrap=0),
        write_truth(tmp_path),
    )
    values = {'base': (0.3, 0.3, 0.3), 'a': (0.33, 0.34, 0.38), 'b': (0.29, 0.31, 0.305)}
    for variant, of in values.items():
        for seed, value in enumerate(of):
            finish(study, variant, seed, truth, values={METRIC: value})
    _, a, b = conclude(study)
    assert a.difference.p == pytest.approx(0.08201490795684313)  # scipy.stats.ttest_1samp
    assert a.difference.q == pytest.approx(2 * a.difference.p)
    assert b.difference.q == b.difference.p
