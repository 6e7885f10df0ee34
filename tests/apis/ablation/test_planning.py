"""The folder of a study: what it refuses, and the plan that is printed. No training is begun."""

import fcntl
import json
import shlex
import subprocess

import pytest

from frdet.apis.ablation import planning
from frdet.apis.ablation.reading import read_study
from frdet.apis.ablation.study import load_study
from frdet.config import load_config
from frdet.errors import ConfigError
from tests.apis.ablation.test_reading import QUICK
from tests.apis.ablation.test_reading import study as write_study_file

TRIED = {'iterations': 4500, 'seconds': 0.1, 'memory': 5000.4, 'hours': 0.25, 'metrics': ['coco/bbox_mAP', 'loss']}


@pytest.fixture(autouse=True)
def tried(monkeypatch):
    """What was tried; nothing is run."""
    names = []

    def fake(config, out, name):
        names.append(name)
        out.write_text(json.dumps(TRIED))
        return TRIED

    monkeypatch.setattr(planning, 'try_config', fake)
    return names


@pytest.fixture
def plan(tmp_path):
    return read_study(write_study_file(tmp_path))


@pytest.fixture
def study(plan, tmp_path):
    study = planning.study_of(plan, tmp_path / 'study')
    planning.write_study(plan, study)
    return study


def change(tmp_path, *text, **kwargs):
    return read_study(write_study_file(tmp_path, *text, **kwargs))


def begin(job):
    job.work_dir.mkdir()
    job.output.touch()


def finish(job):
    begin(job)
    (job.work_dir / 'finished.json').touch()


def test_the_folder_holds_whole_configs(plan, study):
    assert load_study(study.work_dir) == study
    assert study.variants == ('r18_fpn_shapes', 'average') and study.base == 'r18_fpn_shapes'
    for variant in plan.variants:
        assert load_config(study.folder(variant.name) / 'config.py').to_dict() == variant.cfg.to_dict()


def test_going_on(study, tmp_path, tried):
    """The same again, with more seeds and another variant, is the same study; each config is tried once."""
    planning.try_variants(study)
    begin(study.job('average', 0))
    variants = "dict(average={'model.neck.fuse_type': 'avg'}, more={'randomness.deterministic': True})"
    plan = change(tmp_path, 'seeds = 5', variants=variants)
    more = planning.study_of(plan, study.work_dir)
    planning.write_study(plan, more)
    planning.try_variants(more)
    assert tried == ['Variant r18_fpn_shapes', 'Variant average', 'Variant more']
    assert load_study(study.work_dir).seeds == (0, 1, 2, 3, 4)


def test_a_changed_config_is_refused_once_a_run_has_begun(study, tmp_path, tried):
    planning.try_variants(study)
    changed = change(tmp_path, "options = {'optim_wrapper.optimizer.lr': 0.5}")
    planning.write_study(changed, planning.study_of(changed, study.work_dir))  # no run has begun
    planning.try_variants(study)
    assert len(tried) == 4  # both are tried again
    begin(study.job('average', 1))
    with pytest.raises(ConfigError) as info:
        planning.study_of(change(tmp_path), study.work_dir)
    words = str(info.value)
    assert 'average has changed since average/seed_1 began' in words
    assert 'optim_wrapper.optimizer.lr: 0.5 -> 0.025' in words and '--work-dir' in words
    assert load_config(study.folder('average') / 'config.py').optim_wrapper.optimizer.lr == 0.5


def test_a_folder_of_something_else(plan, study, tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/epoch_1.pth').touch()
    with pytest.raises(ConfigError, match='run holds files, and no study'):
        planning.study_of(plan, tmp_path / 'run')
    with pytest.raises(ConfigError, match='study.py is a file'):
        planning.study_of(plan, tmp_path / 'study.py')
    (tmp_path / 'empty').mkdir()
    assert planning.study_of(plan, tmp_path / 'empty').seeds == (0, 1, 2)
    (study.work_dir / 'study.json').write_text('{"variants": 3}')
    with pytest.raises(ConfigError, match='study.json cannot be read'):
        planning.study_of(plan, study.work_dir)
    with pytest.raises(ConfigError, match='holds no study.json'):
        load_study(tmp_path / 'run')


def test_a_study_of_another_base(study, tmp_path):
    (tmp_path / 'mine.py').write_text(f'_base_ = {str(QUICK)!r}\n')
    plan = change(tmp_path, base=tmp_path / 'mine.py')
    with pytest.raises(ConfigError, match='with the base r18_fpn_shapes, not mine'):
        planning.study_of(plan, study.work_dir)


def test_the_plan_in_words(plan, study):
    trials = planning.try_variants(study)
    finish(study.job('average', 2))
    text = planning.plan_table(plan, study, trials, 2)
    lines = text.splitlines()
    assert lines[0] == '2 configs x 3 seeds (0, 1, 2), compared by coco/bbox_mAP of the last validation'
    assert lines[1:3] == ['average:', "    model.neck.fuse_type: 'sum' -> 'avg'"]
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line.startswith('|')]
    assert rows[1:] == [
        ['r18_fpn_shapes', '3', '0.100', '4,500', '5,000', '0.25'],
        ['average', '2', '0.100', '4,500', '5,000', '0.25'],
    ]
    assert lines[-1] == 'By two iterations of each, the runs that are left take 1.25 hours, 0.62 with 2 at once'


def test_budget(plan, study):
    trials = planning.try_variants(study)
    planning.check_budget(plan._replace(budget=1.5), study, trials)  # six runs of a quarter of an hour
    with pytest.raises(ConfigError, match='1.5 hours, more than the budget of 1.4'):
        planning.check_budget(plan._replace(budget=1.4), study, trials)
    finish(study.job('average', 2))
    planning.check_budget(plan._replace(budget=1.4), study, trials)
    planning.check_budget(plan, study, {})
    with pytest.raises(ConfigError, match='r18_fpn_shapes, average was not tried: leave --no-trial out'):
        planning.check_budget(plan._replace(budget=9.0), study, {})


@pytest.mark.parametrize(
    ('metric', 'words'), [('coco/bbox_map', 'did you mean coco/bbox_mAP'), ('AP', 'it gives coco')]
)
def test_a_metric_that_validation_does_not_give(tmp_path, metric, words):
    plan = change(tmp_path, f'metric = {metric!r}')
    with planning.rehearsal(plan) as study, pytest.raises(ConfigError, match=words):
        planning.try_variants(study)
    assert not study.work_dir.exists()


def test_commands_lock_the_runs(study, tmp_path):
    finish(study.job('average', 0))
    lines = planning.commands(study, tmp_path / 'train.py')
    assert len(lines) == 5 and not any('average/seed_0' in line for line in lines)
    words = shlex.split(lines[0])
    job = study.job('r18_fpn_shapes', 0)
    assert words[:4] == ['flock', '-w', '1', str(job.lock)]
    (tmp_path / 'train.py').write_text('import sys; print(sys.argv[1:])')
    done = subprocess.run(words, capture_output=True, text=True)
    expected = [str(job.config), '--work-dir', str(job.work_dir), '--seed', '0', '--resume']
    assert done.stdout.strip() == str(expected)
    with open(job.lock) as lock:  # as while tools/ablate.py trains the run
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert subprocess.run(words, capture_output=True, text=True).stdout == ''
