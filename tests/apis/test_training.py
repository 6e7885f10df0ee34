"""train_detector and test_detector around MMEngine's Runner."""

import copy
import functools
import json
import pickle

import pytest
import torch
from mmengine.model import Sequential

from frdet.apis import test_detector as evaluate_detector
from frdet.apis import train_detector, training
from frdet.engine.hooks import DrawDetectionsHook
from frdet.errors import CheckpointError, ConfigError, DataError, UserError
from frdet.registry import DATASETS, DETECTORS
from frdet.visualization import DetVisualizer
from tests.checkpoints.test_reading import Trap
from tests.engine import toy


def short(tmp_path, **changes):
    return toy.config(tmp_path / 'made' / 'work', **{'train_cfg.max_epochs': 1, **changes})


def test_trains_and_tests(tmp_path):
    model = train_detector(short(tmp_path), work_dir=str(tmp_path / 'a'))
    assert model.calls == 4
    assert (tmp_path / 'a' / 'epoch_1.pth').is_file()
    figures = evaluate_detector(short(tmp_path), str(tmp_path / 'a' / 'epoch_1.pth'))
    assert figures == {'coco/bbox_mAP': 0.12}


def test_work_dir_is_named_after_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = short(tmp_path)
    cfg.pop('work_dir')
    object.__setattr__(cfg, '_filename', 'configs/my_run.py')
    train_detector(cfg)
    assert (tmp_path / 'work_dirs' / 'my_run' / 'epoch_1.pth').is_file()


@pytest.mark.parametrize(
    ('changes', 'saved'),
    [
        ({}, {'epoch_1.pth'}),
        ({'default_hooks.checkpoint.save_best': ['coco/bbox_mAP', 'coco/bbox_mAP_50']}, {'epoch_1.pth'}),
        ({'default_hooks.checkpoint': None}, set()),
        ({'default_hooks.visualization': None}, {'epoch_1.pth'}),
        ({'default_hooks': None}, {'epoch_1.pth'}),  # MMEngine's own
        (
            {
                'default_hooks.early_stopping': dict(type='EarlyStoppingHook', patience=1),
                'default_hooks.val_loss': dict(type='ValLossHook'),
            },
            {'epoch_1.pth'},
        ),
    ],
)
def test_no_validation(tmp_path, changes, saved):
    """Whatever hooks there are for one."""
    assert train_detector(short(tmp_path, **changes), validate=False).calls == 4
    assert {p.name for p in (tmp_path / 'made' / 'work').glob('*.pth')} == saved


@pytest.mark.parametrize('changes', [{}, {'default_hooks.visualization': None}, {'default_hooks': None}])
def test_pictures_whatever_hooks_there_are(tmp_path, monkeypatch, changes):
    drawn = []
    monkeypatch.setattr(DrawDetectionsHook, 'after_test_iter', lambda self, *args, **kw: drawn.append(self.out_dir))
    torch.save({'state_dict': toy.ToyDetector().state_dict()}, tmp_path / 'toy.pth')
    evaluate_detector(short(tmp_path, **changes), str(tmp_path / 'toy.pth'), show_dir='shown')
    assert set(drawn) == {'shown'}


def test_amp_seed_and_determinism(tmp_path, monkeypatch):
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':16:8')
    model = train_detector(short(tmp_path), amp=True, seed=7, deterministic=True)
    assert torch.bfloat16 in model.dtypes
    checkpoint = torch.load(tmp_path / 'made/work/epoch_1.pth', weights_only=True)
    assert checkpoint['meta']['seed'] == 7
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize('amp', [False, True])
def test_tests_in_bfloat16(tmp_path, monkeypatch, amp):
    seen = set()
    forward = toy.ToyDetector.forward

    def watched(self, *args, **kwargs):
        result = forward(self, *args, **kwargs)
        seen.update(self.dtypes)
        return result

    monkeypatch.setattr(toy.ToyDetector, 'forward', watched)
    torch.save({'state_dict': toy.ToyDetector().state_dict()}, tmp_path / 'toy.pth')
    assert evaluate_detector(short(tmp_path), str(tmp_path / 'toy.pth'), amp=amp) == {'coco/bbox_mAP': 0.12}
    assert seen == {torch.bfloat16 if amp else torch.float32}


def test_amp_needs_the_plain_wrapper(tmp_path):
    with pytest.raises(ConfigError, match='AmpOptimWrapper'):
        train_detector(short(tmp_path, **{'optim_wrapper.type': 'AmpOptimWrapper'}), amp=True)


@pytest.mark.parametrize('how', [True, 'auto', 'path'])
def test_resume(tmp_path, how):
    train_detector(short(tmp_path))
    work = tmp_path / 'made' / 'work'
    resume = str(work / 'epoch_1.pth') if how == 'path' else how
    model = train_detector(short(tmp_path, **{'train_cfg.max_epochs': 2}), resume=resume)
    assert model.calls == 4  # of the second epoch alone
    assert (work / 'epoch_2.pth').is_file()


def test_resume_with_nothing_there_begins(tmp_path):
    assert train_detector(short(tmp_path), resume=True).calls == 4


def test_resume_with_nothing_there_begins_from_the_weights_of_the_config(tmp_path):
    state = {name: torch.full_like(value, 2.0) for name, value in toy.ToyDetector().state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'start.pth')
    changes = {'load_from': str(tmp_path / 'start.pth'), 'optim_wrapper.optimizer.lr': 0.0}
    for epochs in (1, 2):  # the second time there is a checkpoint, and it comes first
        model = train_detector(short(tmp_path, **changes, **{'train_cfg.max_epochs': epochs}), resume=True)
        assert model.calls == 4
        assert torch.equal(model.layer[0].weight, state['layer.0.weight'])
    changes['load_from'] = str(tmp_path / 'none.pth')
    with pytest.raises(CheckpointError, match='none.pth'):
        train_detector(short(tmp_path, **changes), resume=True, work_dir=str(tmp_path / 'other'))


def test_workers_can_be_switched_off(tmp_path):
    """The data configs keep workers alive, which torch refuses where there are none."""
    loader = {f'{split}_dataloader.persistent_workers': True for split in ('train', 'val')}
    assert train_detector(short(tmp_path, **loader)).calls == 4


def refused(tmp_path, error, call):
    with pytest.raises(error) as info:
        call()
    assert len(str(info.value).splitlines()) <= 2
    assert not (tmp_path / 'made').exists()
    return str(info.value)


def test_a_mistake_leaves_nothing(tmp_path):
    cfg = short(tmp_path, **{'model.num_clases': 3})
    assert 'num_classes' in refused(tmp_path, ConfigError, lambda: train_detector(cfg))


def test_a_missing_checkpoint_leaves_nothing(tmp_path):
    path = str(tmp_path / 'none.pth')
    for call in (
        lambda: train_detector(short(tmp_path), resume=path),
        lambda: train_detector(short(tmp_path, load_from=path)),
        lambda: evaluate_detector(short(tmp_path), path),
    ):
        assert 'none.pth' in refused(tmp_path, CheckpointError, call)


def test_an_unreadable_checkpoint_leaves_nothing(tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'PK\x03\x04 half a file')
    assert 'unreadable' in refused(
        tmp_path, CheckpointError, lambda: evaluate_detector(short(tmp_path), str(tmp_path / 'a.pth'))
    )


def test_a_class_count_that_differs_leaves_nothing(tmp_path):
    cfg = short(tmp_path, **{'model.num_classes': 5})
    assert 'num_classes=2' in refused(tmp_path, ConfigError, lambda: train_detector(cfg))


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_missing_data_leave_nothing(tmp_path, split):
    torch.save({'state_dict': toy.ToyDetector().state_dict()}, tmp_path / 'a.pth')
    cfg = short(tmp_path)
    cfg[f'{split}_dataloader'].dataset = dict(
        type='CocoDataset', data_root=str(tmp_path / 'none'), ann_file='a.json', data_prefix=dict(img='x')
    )
    if split == 'test':
        call = functools.partial(evaluate_detector, cfg, str(tmp_path / 'a.pth'))
    else:
        call = functools.partial(train_detector, cfg)
    assert 'none does not exist' in refused(tmp_path, DataError, call)


def test_a_run_that_had_begun_keeps_its_folder(tmp_path):
    with pytest.raises(UserError, match='is nan'):
        train_detector(short(tmp_path, **{'model.bad_iteration': 3}))
    assert list((tmp_path / 'made' / 'work').glob('*/*.log'))


@DATASETS.register_module(force=True)
class BreakingDataset(toy.ToyDataset):
    """Of which no more than so many images can be read."""

    def __init__(self, *, readable, **kwargs):
        self.readable = readable
        super().__init__(**kwargs)

    def prepare_data(self, idx):
        self.readable -= 1
        if self.readable < 0:
            raise DataError('broken')
        return super().prepare_data(idx)


@pytest.mark.parametrize(('readable', 'is_kept'), [(0, False), (2, False), (3, True), (7, True)])
def test_a_step_makes_the_folder_worth_keeping(tmp_path, monkeypatch, readable, is_kept):
    """Three images a step. What TensorBoard has open is closed before its folder goes."""
    closed = []
    monkeypatch.setattr(DetVisualizer, 'close', lambda self: closed.append((tmp_path / 'made').exists()))
    with pytest.raises(DataError, match='broken'):
        train_detector(short(tmp_path, **{'train_dataloader.dataset': dict(type='BreakingDataset', readable=readable)}))
    assert (tmp_path / 'made').exists() == is_kept
    assert closed == ([] if is_kept else [True])


def test_a_folder_that_was_there_is_kept(tmp_path):
    work = tmp_path / 'made' / 'work'
    work.mkdir(parents=True)
    (work / 'notes.txt').write_text('mine')
    with pytest.raises(ConfigError):
        train_detector(short(tmp_path, **{'model.num_classes': 5}))
    assert (work / 'notes.txt').read_text() == 'mine'


def test_out_needs_the_coco_metric(tmp_path):
    torch.save({'state_dict': toy.ToyDetector().state_dict()}, tmp_path / 'a.pth')
    with pytest.raises(ConfigError, match='CocoMetric'):
        evaluate_detector(short(tmp_path), str(tmp_path / 'a.pth'), out=str(tmp_path / 'out.json'))


def test_scalars_are_json_lines(tmp_path):
    train_detector(short(tmp_path))
    (file,) = (tmp_path / 'made' / 'work').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r['iter'] for r in records if 'loss' in r] == [1, 2, 3, 4]
    assert records[-1]['coco/bbox_mAP'] == 0.12


@DETECTORS.register_module(force=True)
class ToyWithClasses(toy.ToyDetector):
    """With the layers that depend on the number of classes."""

    def __init__(self, *, num_classes=2):
        super().__init__(num_classes=num_classes)
        self.head = torch.nn.Module()
        self.head.num_classes, self.head.class_layers = num_classes, ('fc_cls', 'fc_reg')
        self.head.fc_cls, self.head.fc_reg = torch.nn.Linear(3, num_classes + 1), torch.nn.Linear(3, 4)


LAYER = toy.ToyDetector().layer


@DETECTORS.register_module(force=True)
class ToyWithBackbone(toy.ToyDetector):
    """With a part that has an ``init_cfg``."""

    def __init__(self, *, inner_init_cfg):
        super().__init__()
        self.inner = Sequential(*copy.deepcopy(LAYER), init_cfg=inner_init_cfg)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        losses = super().forward(inputs, data_samples, mode)
        if mode == 'loss':
            losses['loss_inner'] = self.inner(torch.zeros(2, 1, 1, 1)).sum()
        return losses


def train_from(tmp_path, state):
    """Train with ``load_from`` and a rate of zero; returns the model and the warnings in the log."""
    torch.save({'state_dict': state}, tmp_path / 'start.pth')
    cfg = short(tmp_path, load_from=str(tmp_path / 'start.pth'), **{'optim_wrapper.optimizer.lr': 0.0})
    cfg.model = dict(type='ToyWithClasses')
    cfg.find_unused_parameters = True
    model = train_detector(cfg)
    (log,) = (tmp_path / 'made' / 'work').glob('*/*.log')
    return model, [line for line in log.read_text().splitlines() if 'WARNING' in line and 'start.pth' in line]


def test_load_from_other_classes(tmp_path):
    state = ToyWithClasses(num_classes=7).state_dict()
    model, warnings = train_from(tmp_path, state)
    (warning,) = warnings
    assert '7 classes, the model 2' in warning and 'fc_cls start anew' in warning
    assert torch.equal(model.layer[0].weight, state['layer.0.weight'])
    assert torch.equal(model.head.fc_reg.weight, state['head.fc_reg.weight'])


def test_load_from_more_than_the_model(tmp_path):
    _, warnings = train_from(tmp_path, {**ToyWithClasses().state_dict(), 'mask_head.w': torch.ones(1)})
    (warning,) = warnings
    assert 'mask_head.w: left out' in warning


@pytest.mark.parametrize('name', ['layer.0.weight', 'head.fc_cls.bias'])
def test_load_from_less_than_the_model_leaves_nothing(tmp_path, name):
    """Training would go on with random weights."""
    state = ToyWithClasses().state_dict()
    del state[name]
    message = refused(tmp_path, CheckpointError, lambda: train_from(tmp_path, state))
    assert f'lacks {name}' in message and 'start.pth' in message


def test_weights_that_load_from_replaces_need_not_be_there(tmp_path):
    """A user with a whole checkpoint may have no ImageNet weights, and no network."""
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'imagenet.pth'))
    state = {f'{part}.{name}': value for part in ('layer', 'inner') for name, value in LAYER.state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'start.pth')
    for changes in ({}, {'load_from': str(tmp_path / 'start.pth')}):
        cfg = short(tmp_path, **changes)
        cfg.model = dict(type='ToyWithBackbone', inner_init_cfg=init_cfg)
        if not changes:
            assert 'imagenet.pth' in refused(tmp_path, CheckpointError, lambda cfg=cfg: train_detector(cfg))
        else:
            assert train_detector(cfg).calls == 4


@pytest.mark.parametrize('name', ['trap.pth', 'trap.pkl'])
@pytest.mark.parametrize('task', ['train', 'test'])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, name, task):
    with open(tmp_path / name, 'wb') as file:
        (pickle.dump if name.endswith('pkl') else torch.save)({'model': Trap(tmp_path / 'sprung')}, file)
    path = str(tmp_path / name)
    if task == 'train':
        call = functools.partial(train_detector, short(tmp_path, load_from=path))
    else:
        call = functools.partial(evaluate_detector, short(tmp_path), path)
    assert 'refused' in refused(tmp_path, CheckpointError, call)
    assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        ('model', 'Training needs model, train_dataloader, .* has no model'),
        ('train_dataloader', 'has no train_dataloader'),
        ('optim_wrapper', 'has no optim_wrapper'),
        ('val_evaluator', 'Validation needs val_dataloader, val_cfg, val_evaluator: .* has no val_evaluator'),
    ],
)
def test_a_part_that_is_missing(tmp_path, missing, message):
    cfg = toy.config(tmp_path)
    cfg[missing] = None
    with pytest.raises(ConfigError, match=message):
        train_detector(cfg)


def test_testing_needs_an_evaluator(tmp_path):
    cfg = toy.config(tmp_path)
    cfg.test_evaluator = None
    with pytest.raises(ConfigError, match='Testing needs .* has no test_evaluator'):
        evaluate_detector(cfg, 'x.pth')


def test_a_default_hook_can_be_left_out(tmp_path):
    """Without its check, a checkpoint of other classes is tested, as the check's error says."""
    cfg = short(tmp_path, **{'default_hooks.timer': None, 'default_hooks.progress': None})
    train_detector(cfg, work_dir=str(tmp_path / 'a'))
    changes = {'test_dataloader.dataset.metainfo': dict(classes=('dog', 'cat'))}
    with pytest.raises(ConfigError, match=r'set default_hooks\.check_setup=None'):
        evaluate_detector(short(tmp_path, **changes), str(tmp_path / 'a' / 'epoch_1.pth'))
    cfg = short(tmp_path, **changes, **{'default_hooks.check_setup': None})
    assert evaluate_detector(cfg, str(tmp_path / 'a' / 'epoch_1.pth'))


def test_a_test_that_could_compute_nothing_is_refused(tmp_path):
    """Before the first image: hours of a large test set would be lost."""
    images = [dict(id=k, file_name=f'{k}.png', width=9, height=9) for k in range(2)]
    (tmp_path / 'info.json').write_text(json.dumps(dict(images=images, categories=[dict(id=1, name='cat')])))
    torch.save({'state_dict': toy.ToyDetector().state_dict()}, tmp_path / 'a.pth')
    cfg = short(tmp_path, **{'default_hooks.check_setup': None})
    data = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='info.json', data_prefix=dict(img=''))
    cfg.test_dataloader.dataset = dict(**data, test_mode=True)
    cfg.test_evaluator = dict(type='CocoMetric')
    message = refused(tmp_path, DataError, lambda: evaluate_detector(cfg, str(tmp_path / 'a.pth')))
    assert 'info.json has no annotation' in message and '--out' in message and '--show-dir' in message


@pytest.mark.parametrize('has_file', [False, True])
def test_another_process_than_the_first_leaves_no_empty_folder(tmp_path, monkeypatch, has_file):
    """It is so slow that the first process has cleaned up before; what that process may have written stays."""

    def fail(cfg):
        folder = tmp_path / 'made/work/20261127_120000'
        folder.mkdir(parents=True)
        if has_file:
            (folder / 'a.log').write_text('')
        raise ConfigError('SyncBN')

    monkeypatch.setattr(training, 'is_main_process', lambda: False)
    monkeypatch.setattr(training, 'GRACE', 0)
    monkeypatch.setattr(training.DetRunner, 'from_cfg', fail)
    with pytest.raises(ConfigError, match='SyncBN'):
        train_detector(short(tmp_path))
    assert (tmp_path / 'made/work').exists() == has_file
