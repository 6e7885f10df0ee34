"""A work dir that holds a run already."""

import json
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from frdet.apis import test_detector as evaluate_detector
from frdet.apis import train_detector
from frdet.engine.hooks import WorkFolderHook, work_folder
from frdet.engine.hooks.work_folder import REPORT, is_run_in_the_way
from frdet.errors import ConfigError, UserError
from tests.engine import toy


@pytest.fixture(autouse=True)
def _new_process(monkeypatch):
    """What earlier tests trained is the work of another process."""
    monkeypatch.setattr(work_folder, '_trained', set())


def config(work_dir, **keys):
    return Config(dict(work_dir=str(work_dir), **keys))


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def content(folder, but=()):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and path.relative_to(folder).parts[0] not in but
    }


@pytest.mark.parametrize(
    'name',
    ['epoch_3.pth', 'iter_4000.pth', 'best_coco_bbox_mAP_epoch_1.pth', 'non_finite_iter_7_rank1.pth',
     'last_checkpoint', 'results.csv', '20260101_000000/vis_data/scalars.json'],
)  # fmt: skip
def test_what_a_run_leaves_is_in_the_way(tmp_path, name):
    fill(tmp_path, name)
    with pytest.raises(ConfigError) as info:
        is_run_in_the_way(config(tmp_path), overwrite=False)
    words = str(info.value)
    assert len(words.splitlines()) <= 2
    assert all(part in words for part in (str(tmp_path), name, '--resume', '--overwrite', '--work-dir'))
    assert is_run_in_the_way(config(tmp_path), overwrite=True)
    assert not is_run_in_the_way(config(tmp_path, resume=True, load_from=None), overwrite=False)


@pytest.mark.parametrize(
    'name',
    ['notes.txt', 'my_config.py', 'resnet50.pth', 'pictures/1.jpg', '20260101_000000/20260101_000000.log',
     '20260101_000000/vis_data/config.py', '20260101_000000/20260101_000000.json',
     'old_1/epoch_3.pth', 'old_1/20260101_000000/vis_data/scalars.json', '.epoch_1.pth.77.unfinished'],
)  # fmt: skip
def test_other_files_are_not(tmp_path, name):
    """A user's own, what tools/test.py leaves, and what was moved aside."""
    fill(tmp_path, name)
    assert not is_run_in_the_way(config(tmp_path), overwrite=False)
    assert not is_run_in_the_way(config(tmp_path), overwrite=True)


def test_a_folder_that_is_not_there(tmp_path):
    assert not is_run_in_the_way(config(tmp_path / 'none'), overwrite=False)


@pytest.mark.parametrize(
    ('hook', 'place'),
    [
        (dict(out_dir='elsewhere'), 'elsewhere/work/epoch_1.pth'),
        (dict(filename_tmpl='net_{:03d}.pth'), 'work/net_001.pth'),
        (dict(out_dir='s3://bucket'), None),
        (None, 'work/epoch_1.pth'),
    ],
)
def test_checkpoints_of_another_folder_or_name(tmp_path, monkeypatch, hook, place):
    monkeypatch.chdir(tmp_path)
    cfg = config('work', default_hooks=dict(checkpoint=hook))
    assert not is_run_in_the_way(cfg, overwrite=False)
    if place is not None:
        fill(tmp_path, place)
        with pytest.raises(ConfigError, match='epoch_1|net_001'):
            is_run_in_the_way(cfg, overwrite=False)


@pytest.mark.parametrize(
    ('checkpoint', 'is_refused'), [('work/epoch_1.pth', False), ('old/epoch_1.pth', True), ('out/epoch_1.pth', False)]
)
def test_going_on_from_a_checkpoint_of_another_run(tmp_path, checkpoint, is_refused):
    fill(tmp_path, 'work/epoch_1.pth', 'old/epoch_1.pth', 'out/epoch_1.pth')
    (tmp_path / 'work/last_checkpoint').write_text(str(tmp_path / 'out/epoch_1.pth'))
    cfg = config(tmp_path / 'work', resume=True, load_from=str(tmp_path / checkpoint))
    if is_refused:
        with pytest.raises(ConfigError, match='holds a run already'):
            is_run_in_the_way(cfg, overwrite=False)
    else:
        assert not is_run_in_the_way(cfg, overwrite=False)
    # Weights to begin with are no run to go on with.
    with pytest.raises(ConfigError, match='holds a run already'):
        is_run_in_the_way(config(tmp_path / 'work', load_from=str(tmp_path / checkpoint)), overwrite=False)


def train(work_dir, *, length=12, epochs=1, changes=None, report=False, **arguments):
    cfg = toy.config(
        work_dir, report=report, **{'train_cfg.max_epochs': epochs, 'train_dataloader.dataset.length': length}
    )
    cfg.merge_from_dict(changes or {})
    object.__setattr__(cfg, '_filename', 'configs/my_run.py')
    return train_detector(cfg, **arguments)


def test_nothing_is_written_where_a_run_is_refused(tmp_path):
    train(tmp_path, epochs=2)
    before = content(tmp_path)
    work_folder._trained.clear()
    with pytest.raises(ConfigError, match='holds a run already'):
        train(tmp_path)
    assert content(tmp_path) == before


def test_overwriting_moves_the_run_as_it_is(tmp_path):
    """Nothing of two runs is lost, and each folder holds one; what is no run's stays."""
    fill(tmp_path, 'notes.txt', 'resnet50.pth')
    train(tmp_path, epochs=2, report=True)
    fill(tmp_path, 'report.html')
    evaluate_detector(toy.config(tmp_path), str(tmp_path / 'epoch_2.pth'))
    first = content(tmp_path)
    work_folder._trained.clear()
    model = train(tmp_path, length=6, changes={'randomness.seed': 1}, report=True, overwrite=True)
    assert model.calls == 2
    kept = {name: first.pop(name) for name in ('notes.txt', 'resnet50.pth')}
    tested = [name for name in first if name.endswith('.py') and '/' not in name and name != 'my_run.py']
    for name in tested:  # the config that testing wrote
        first.pop(name)
    assert content(tmp_path / 'old_1') == first
    assert set(kept) | {'epoch_1.pth', 'my_run.py', 'last_checkpoint', 'results.csv'} <= set(content(tmp_path))
    assert not (tmp_path / 'epoch_2.pth').exists() and not (tmp_path / 'report.html').exists()
    second = content(tmp_path, but=['old_1'])
    train(tmp_path, overwrite=True)
    assert {name for name in second if name not in kept} - set(tested) == set(content(tmp_path / 'old_2'))
    assert content(tmp_path / 'old_1') == first
    # The run that was moved goes on where it is.
    assert train(tmp_path / 'old_1', epochs=3, resume=True).calls == 4
    assert not (tmp_path / 'epoch_3.pth').exists() and (tmp_path / 'old_1/epoch_3.pth').is_file()


def test_a_cell_that_is_run_again(tmp_path):
    """A process moves its own run without being asked, and says where to."""
    train(tmp_path)
    first = (tmp_path / 'epoch_1.pth').read_bytes()
    train(tmp_path, changes={'randomness.seed': 1})
    assert (tmp_path / 'old_1/epoch_1.pth').read_bytes() == first
    (log,) = tmp_path.glob('*/*.log')
    assert f'is in {tmp_path}/old_1 now' in log.read_text()


@pytest.mark.parametrize('is_first', [True, False])
def test_the_first_process_moves_and_the_others_wait(tmp_path, monkeypatch, is_first):
    monkeypatch.setattr(work_folder, 'is_main_process', lambda: is_first)
    monkeypatch.setattr(work_folder, 'barrier', lambda: waited.append((tmp_path / 'epoch_1.pth').exists()))
    waited = []
    fill(tmp_path, 'epoch_1.pth', '20260101_000000/vis_data/scalars.json', '20260102_000000/vis_data/config.py')
    run = SimpleNamespace(work_dir=str(tmp_path), timestamp='20260102_000000', logger=MMLogger('work folder'))
    WorkFolderHook(config(tmp_path), move=True).before_train(run)
    moved = ['20260101_000000/vis_data/scalars.json', 'epoch_1.pth'] if is_first else []
    assert waited == [not is_first]
    assert sorted(content(tmp_path / 'old_1')) == moved
    assert (tmp_path / '20260102_000000/vis_data/config.py').is_file()  # of the run that begins


def test_a_mistake_moves_nothing(tmp_path):
    train(tmp_path)
    before = content(tmp_path)
    with pytest.raises(ConfigError, match='num_classes'):
        train(tmp_path, changes={'model.num_classes': 5}, overwrite=True)
    now = content(tmp_path)
    assert {name: now[name] for name in before if name != 'my_run.py'} == {
        name: text for name, text in before.items() if name != 'my_run.py'
    }
    assert not (tmp_path / 'old_1').exists()


def test_a_run_that_failed_at_once_is_not_in_the_way(tmp_path):
    tmp_path.joinpath('notes.txt').write_text('the folder is not removed')
    for _ in range(2):
        with pytest.raises(UserError, match='num_classes'):
            train(tmp_path, changes={'model.num_classes': 5})
    assert train(tmp_path).calls == 4


def test_going_on_in_another_folder_keeps_the_first(tmp_path, monkeypatch):
    """Its best checkpoint, too, although the run that goes on finds a better one."""
    figures = iter([0.1, 0.2])
    monkeypatch.setattr(toy.ToyMetric, 'compute_metrics', lambda self, results: dict(bbox_mAP=next(figures)))
    train(tmp_path / 'a')
    before = content(tmp_path / 'a')
    train(tmp_path / 'b', epochs=2, resume=str(tmp_path / 'a/epoch_1.pth'))
    assert (tmp_path / 'b/best_coco_bbox_mAP_epoch_2.pth').is_file()
    assert content(tmp_path / 'a') == before


def test_going_on_and_beginning_anew(tmp_path):
    with pytest.raises(ConfigError, match='choose one'):
        train(tmp_path, resume=True, overwrite=True)


def test_all_that_is_written_for_people_is_known(tmp_path):
    """Else it would stay behind when a run is moved."""
    train(tmp_path, report=True)
    shown = {path.name for path in tmp_path.iterdir() if path.suffix in ('.png', '.csv')}
    assert shown and shown <= set(REPORT)


def test_finished_is_noted_at_the_end_and_not_before(tmp_path, monkeypatch):
    train(tmp_path)
    finished = tmp_path / work_folder.FINISHED
    assert json.loads(finished.read_text()) == {'iter': 4}  # of 12 images in threes

    def break_down(self, results):
        raise RuntimeError('the second epoch is trained, and cannot be evaluated')

    monkeypatch.setattr(toy.ToyMetric, 'compute_metrics', break_down)
    with pytest.raises(RuntimeError, match='second epoch'):
        train(tmp_path, epochs=2, resume=True)
    assert not finished.exists()
    monkeypatch.undo()
    train(tmp_path, epochs=2, resume=True)
    assert json.loads(finished.read_text()) == {'iter': 8}
