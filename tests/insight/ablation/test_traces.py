"""Where the runs of a study lose objects: the traces that are made, those that count, and what tables and page say."""

import os

import pytest
from mmengine.config import Config

from frdet.errors import ConfigError
from frdet.insight.ablation import traces
from frdet.insight.ablation.conclude import conclude
from frdet.insight.ablation.page import write_ablation
from frdet.insight.ablation.reports import write_reports
from frdet.insight.ablation.tables import STAGES as CAPTION
from frdet.insight.ablation.tables import markdown
from frdet.insight.ablation.traces import read_traces, trace_runs
from frdet.insight.trace.model import FOUND
from tests.insight.ablation.made import make_run, make_study
from tests.insight.report.test_training_page import table_of
from tests.insight.trace.written import STAGES, write_trace

ANCHOR, NMS, BACKGROUND, _ = STAGES


def finish(study, variant, seed):
    """A finished run with a last checkpoint."""
    job = make_run(study, variant, seed, 0.5)
    (job.work_dir / 'epoch_2.pth').write_text('')
    (job.work_dir / 'last_checkpoint').write_text(str(job.work_dir / 'epoch_2.pth'))
    return job


def trace(job, lost_by_nms, lost_by_background=0, count=10, **options):
    """A trace of ``count`` objects."""
    stages = [NMS] * lost_by_nms + [BACKGROUND] * lost_by_background
    stages += [FOUND] * (count - len(stages))
    options.setdefault('checkpoint', 'moved/since/epoch_2.pth')
    return write_trace(job.work_dir / 'trace', stages, **options)


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    """Percents at NMS: 40, 50, 30 of the base, and 20, 30, 20 of the variant; it has no third trace of the base."""
    study = make_study(tmp_path_factory.mktemp('traced'), ('base', 'a|b'), (0, 1, 2, 3))
    for seed, (base, own) in enumerate(((4, 2), (5, 3), (3, 2))):
        trace(finish(study, 'base', seed), base)
        trace(finish(study, 'a|b', seed), own, 1)
    finish(study, 'base', 3)
    trace(finish(study, 'a|b', 3), 9, 1)
    return study


def test_means_and_differences(study):
    base, own = conclude(study)
    assert base.lost == pytest.approx({ANCHOR: 0, NMS: 40, BACKGROUND: 0, FOUND: 60}) and not base.stages
    assert own.lost == pytest.approx({ANCHOR: 0, NMS: 40, BACKGROUND: 10, FOUND: 50})  # (20 + 30 + 20 + 90) / 4
    assert list(own.stages) == [NMS, BACKGROUND, FOUND]  # no run lost an object at the anchors
    nms = own.stages[NMS]
    assert nms.by_seed == pytest.approx({0: -20, 1: -20, 2: -10})
    # Mean -16.67 and spread 5.774; the half-width is 4.303 * 5.774 / sqrt(3) = 14.34.
    assert nms.interval == pytest.approx((-31.01, -2.32), abs=0.01)
    # p is 1 - t / sqrt(t * t + 2) with 2 degrees of freedom, and t is 5. It is the second least p of three.
    assert nms.q == pytest.approx((1 - 5 / 27**0.5) * 3 / 2) and own.stages[BACKGROUND].q == 0
    assert not any('trace' in note for note in (*base.notes, *own.notes))


def test_what_table_and_page_say(study, browser):
    rows = [
        [NMS, '40.0', '40.0', '-16.7', '[-31.0, -2.3]', '0.057'],
        [BACKGROUND, '0.0', '10.0', '+10.0', '[+10.0, +10.0]', '&lt; 0.001'],
        [FOUND, '60.0', '50.0', '+6.7', '[-7.7, +21.0]', '0.184'],
    ]
    conclusions = conclude(study)
    job = study.job('a|b', 0)
    page = write_ablation(study, conclusions, study.work_dir / 'ablation.html')
    content = page.read_text()
    assert table_of(content, CAPTION) == rows
    assert [row[-1] for row in table_of(content, 'All runs')].count('–') == 1  # of the run without a trace
    lines = markdown(study, conclusions).splitlines()
    assert lines[-5] == '| stage | base | a\\|b | difference | 95%, seeds | q |'
    assert lines[-3] == '| proposal NMS | 40.0 | 40.0 | -16.7 | [-31.0, -2.3] | 0.057 |'
    browser.check(page)
    browser.run('document.querySelector(\'a[href="a%7Cb/seed_0/trace/trace.html"]\').click()')
    assert browser.run('return document.title') == 'one trace' and job.is_finished


def test_a_study_without_traces(tmp_path):
    study = make_study(tmp_path)
    finish(study, 'base', 0)
    conclusions = conclude(study)
    assert not any(one.lost or one.stages for one in conclusions) and CAPTION not in markdown(study, conclusions)


def test_traces_that_do_not_count(tmp_path):
    study = make_study(tmp_path, ('base', 'a', 'b'), (0, 1))
    jobs = {job.name: finish(study, job.variant, job.seed) for job in study.jobs()}
    trace(jobs['base/seed_0'], 4)
    trace(jobs['base/seed_1'], 4, checkpoint='epoch_1.pth')
    trace(jobs['a/seed_0'], 4, iou=0.75)
    trace(jobs['a/seed_1'], 4, count=20)
    (trace(jobs['b/seed_0'], 4) / 'trace.json').write_text('{')
    old = trace(jobs['b/seed_1'], 4) / 'trace.json'
    os.utime(old, ns=(0, (jobs['b/seed_1'].work_dir / 'epoch_2.pth').stat().st_mtime_ns - 1))
    found = read_traces(study)
    assert list(found.percents) == ['base'] and list(found.percents['base']) == [0]
    again = 'is no trace of the last checkpoint epoch_2.pth: --trace makes it anew'
    assert found.notes['base'] == [f'base/seed_1: {jobs["base/seed_1"].work_dir}/trace {again}']
    assert found.notes['a'] == [
        'a/seed_0: its trace has the IoU 0.75, and that of base/seed_0 has 0.5: it is left out',
        'a/seed_1: its trace has the number of objects 20, and that of base/seed_0 has 10: it is left out',
    ]
    assert 'is no trace (' in found.notes['b'][0] and found.notes['b'][1].endswith(again)
    assert conclude(study)[1].notes[-2:] == found.notes['a']


def test_a_trace_whose_checkpoint_was_removed(tmp_path):
    study = make_study(tmp_path, ('base',), (0,))
    job = finish(study, 'base', 0)
    trace(job, 4)
    (job.work_dir / 'epoch_2.pth').unlink()
    assert list(read_traces(study).percents) == ['base']


def test_making_traces(tmp_path, monkeypatch, capsys):
    """Of finished runs that have none; a failure is a sentence, and the others are made."""
    study = make_study(tmp_path, ('base', 'a'), (0, 1, 2, 3))
    for seed in (0, 1):
        finish(study, 'base', seed)
        finish(study, 'a', seed)
    trace(study.job('a', 0), 4)
    finish(study, 'a', 2)
    make_run(study, 'base', 2, 0.5)  # without a checkpoint
    make_run(study, 'base', 3)  # not finished
    asked = []

    def make(cfg, checkpoint, out, **options):
        asked.append((cfg.work_dir, checkpoint, options))
        if 'seed_1' in str(out):
            raise ConfigError('no annotations')
        if 'seed_2' in str(out):
            raise ValueError('a bug')
        write_trace(out, [FOUND], checkpoint=checkpoint)

    monkeypatch.setattr(traces, 'make_trace', make)
    monkeypatch.setattr(traces, 'load_config', lambda path: Config(dict(file=path)))
    assert trace_runs(study) == [
        'No trace of base/seed_1, a/seed_1: no annotations',
        'No trace of base/seed_2: its work dir names no last checkpoint',
        'No trace of a/seed_2: ValueError: a bug',
    ]
    work_dir = study.job('base', 0).work_dir
    assert asked[0] == (f'{work_dir}/trace', f'{work_dir}/epoch_2.pth', {'split': 'val'}) and len(asked) == 4
    assert capsys.readouterr().out.splitlines() == [
        f'Tracing {name}' for name in ('base/seed_0', 'base/seed_1', 'a/seed_1', 'base/seed_2', 'a/seed_2')
    ]


def test_a_report_older_than_the_trace_is_made_again(tmp_path, monkeypatch):
    study = make_study(tmp_path, ('base',), (0, 1))
    for seed, newest in ((0, 'trace/trace.json'), (1, 'report.html')):
        work_dir = trace(finish(study, 'base', seed), 4).parent
        (work_dir / 'report.html').write_text('')
        for name in ('finished.json', 'trace/trace.json', 'report.html'):
            os.utime(work_dir / name, (0, 2 if name == newest else 1))
    written = []
    monkeypatch.setattr('frdet.insight.ablation.reports.write_page', lambda work_dir, out: written.append(work_dir))
    write_reports(study)
    assert written == [study.job('base', 0).work_dir]
