"""The page of studies made by hand: what it says, what it leads to, and what is missing."""

import os
import re

import pytest

from frdet.errors import ConfigError
from frdet.insight.ablation.conclusions import Interval
from frdet.insight.ablation.page import write_ablation
from frdet.insight.ablation.reports import write_reports
from tests.insight.ablation.made import conclude, difference, make_run, make_study
from tests.insight.report.test_training_page import table_of

HOSTILE = 'a b#<i>%'


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A page of three pairs, and the study. The name of the variant, and of a class, needs escaping."""
    study = make_study(tmp_path_factory.mktemp('finished'), ('base', HOSTILE))
    values = {'base': {0: 0.5, 1: 0.51, 2: 0.52}, HOSTILE: {0: 0.53, 1: 0.54, 2: 0.56}}
    jobs = [make_run(study, variant, seed, value) for variant, of in values.items() for seed, value in of.items()]
    more = dict(
        images={0: Interval(0.01, 0.05)},
        sizes={'AP_s': difference([0.0, 0.1], q=0.04)},
        classes={f'<b>{k}': difference([0.01 * k, 0.01 * k + 0.01], q=0.1) for k in range(100)},
        errors={'missed': 0.25, 'localisation': 0.125},
        seconds=0.3,
        memory=None,
        params=2_500_000,
    )
    conclusions = conclude(study, values, **more)
    conclusions[0] = conclusions[0].__class__(**{**vars(conclusions[0]), 'errors': more['errors'], 'seconds': 0.25})
    (jobs[-1].work_dir / 'report.html').write_text('<title>report</title>')
    return study, write_ablation(study, conclusions, study.work_dir / 'ablation.html', warnings=['Mind <this>'])


def test_what_it_says(finished):
    content = finished[1].read_text()
    assert f'<p>{escaped(HOSTILE)}: better.</p>' in content and 'Mind &lt;this&gt;' in content
    assert '<dt>finished runs</dt><dd>6 of 6</dd>' in content
    name = escaped(HOSTILE)
    # The half-width of the differences 0.03, 0.03, 0.04: 4.303 * 0.00577 / sqrt(3) = 0.0143.
    assert table_of(content, 'Variants')[1][:5] == [name, '0.5433 ± 0.0153', '3 of 3', '+0.0333', '[+0.0190, +0.0477]']
    assert '<p>95%, seeds: where the mean difference' in content
    assert table_of(content, 'coco/bbox_mAP of each pair') == [
        [name, '0', '0.5', '0.53', '+0.03', '[+0.01,\N{NO-BREAK SPACE}+0.05]'],
        [name, '1', '0.51', '0.54', '+0.03', '–'],
        [name, '2', '0.52', '0.56', '+0.04', '–'],
    ]
    assert table_of(content, 'Differences to base') == [[name, 'lr', '0.01', '0.02']]
    assert table_of(content, 'AP lost by kind of error') == [['base', '0.125', '0.25'], [name, '0.125', '0.25']]
    assert table_of(content, 'Time, memory and size') == [
        ['base', '0.25', '+0.0%', '–', '480x640'],
        [name, '0.3', '+20.0%', '2.5', '480x640'],
    ]
    parts = table_of(content, 'Differences of other metrics and of classes, the surest first')
    # The half-width of two pairs that differ by 0.1: 12.706 * 0.1 / sqrt(2) / sqrt(2) = 0.6353.
    assert parts[0] == [name, 'metric', 'AP_s', '2', '+0.05', '[-0.585,\N{NO-BREAK SPACE}+0.685]', '0.02', '0.04']
    assert len(parts) == 101 and parts[1][2] == '&lt;b&gt;0'


def escaped(name):
    return name.replace('<', '&lt;').replace('>', '&gt;')


def test_in_a_browser(browser, finished):
    browser.check(finished[1])
    assert browser.count('table a') == 1
    browser.find('table a').click()
    assert browser.run('return document.title') == 'report'


def test_runs_that_lack(tmp_path):
    """One run has stopped, one waits, and a config is broken: everything else is there."""
    study = make_study(tmp_path, ('base', 'giou'), (0, 1), metric='my/error', less_is_better=True)
    values = {'base': {0: 3.0, 1: 2.0}, 'giou': {}}
    for seed, value in values['base'].items():
        make_run(study, 'base', seed, value)
    (study.job('base', 1).work_dir / 'finished.json').write_text('{"iter": 38}')
    make_run(study, 'giou', 0, reached=20)
    (study.folder('giou') / 'config.py').write_text('a = = 1')
    conclusions = conclude(study, values)
    conclusions[1].missing.update({f'giou/seed_{seed}': 'It has not come to its end' for seed in (0, 1)})
    content = write_ablation(study, conclusions, tmp_path / 'elsewhere/page.html').read_text()
    assert '<p>giou: too few runs.</p>' in content and 'less is better' in content
    assert re.findall(r'<li>(.*)</li>', content)[-2:] == [
        'Missing: giou/seed_0, giou/seed_1 (It has not come to its end)',
        f'{study.folder("giou") / "config.py"} cannot be read',
    ]
    assert table_of(content, 'All runs') == [
        ['base', '0', 'finished', '3', '40', '40', '–', '–'],
        ['base', '1', 'finished', '2', '38', '40', '–', '–'],
        ['giou', '0', 'stopped', '–', '20', '40', '–', '–'],
        ['giou', '1', 'waiting', '–', '–', '40', '–', '–'],
    ]
    assert 'Reading\nRuntimeError: no &lt;memory&gt;</pre>' in content
    assert content.count('class="plot"') == 2  # curves; nothing is compared
    assert len(re.findall('<path[^>]*stroke-dasharray', content)) == 2  # the run that stopped, in each


def test_nothing_has_begun(tmp_path):
    study = make_study(tmp_path)
    content = write_ablation(study, conclude(study, {'base': {}, 'giou': {}}), tmp_path / 'page.html').read_text()
    assert 'No run has logged anything yet.' in content and 'class="plot"' not in content
    assert 'Where objects are lost' not in content  # there is no trace


def test_unwritable_page(tmp_path):
    study = make_study(tmp_path)
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='cannot be written'):
        write_ablation(study, conclude(study, {'base': {}, 'giou': {}}), tmp_path / 'file/page.html')


def test_reports_of_finished_runs(tmp_path, monkeypatch):
    """Only of those that lack one, or have an older one; a failure is a sentence, and the others are written."""
    study = make_study(tmp_path, ('base',), (0, 1, 2, 3))
    jobs = [make_run(study, 'base', seed, 0.5) for seed in (0, 1, 2)] + [make_run(study, 'base', 3)]
    for job, age in zip(jobs[:2], (10, -10), strict=True):
        (job.work_dir / 'report.html').write_text('')
        ended = (job.work_dir / 'finished.json').stat().st_mtime
        os.utime(job.work_dir / 'report.html', (ended, ended - age))
    written = []

    def write(work_dir, out):
        written.append(out)
        if work_dir == jobs[0].work_dir:
            raise ValueError('no <b>')

    monkeypatch.setattr('frdet.insight.ablation.reports.write_page', write)
    assert write_reports(study) == ['base/seed_0 has no report (ValueError: no <b>)']
    assert written == [jobs[0].work_dir / 'report.html', jobs[2].work_dir / 'report.html']


def test_one_pair_of_one_class_by_another_metric(tmp_path):
    """One pair has no interval and no q."""
    study = make_study(tmp_path, seeds=(0,), metric='my/error', less_is_better=True)
    values = {'base': {0: 30.0}, 'giou': {0: 28.5}}
    for variant in values:
        make_run(study, variant, 0, values[variant][0])
    conclusions = conclude(study, values, classes={'part': difference([0.1])})
    content = write_ablation(study, conclusions, tmp_path / 'page.html').read_text()
    assert table_of(content, 'my/error of each pair') == [['giou', '0', '30', '28.5', '-1.5', '–']]
    parts = table_of(content, 'Differences of other metrics and of classes, the surest first')
    assert parts == [['giou', 'class', 'part', '1', '+0.1', '–', '–', '–']]
    assert '>my/error: variant minus base</text>' in content and 'The interval over images' not in content
