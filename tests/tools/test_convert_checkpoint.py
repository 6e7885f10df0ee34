"""tools/convert_checkpoint.py, and its commands in the documentation."""

import importlib.util
import os
import pickle
import shlex
import sys
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
import torchvision

from frdet.checkpoints import BGR, RGB, change_input, map_coco_classes, read_detector, write_detector
from frdet.checkpoints.reading import torchvision_url
from frdet.config import load_config
from frdet.datasets import write_shapes
from frdet.errors import CheckpointError
from frdet.registry import DETECTORS
from tests.checkpoints.test_families import one_stage
from tests.checkpoints.test_reading import Trap
from tests.checkpoints.tiny import assert_equal, tiny
from tests.engine.toy import ROOT
from tests.tools.test_bad_input import QUICK, options
from tests.tools.test_train_and_test import run_tool

CLASSES = ('cat', 'dog')


@pytest.fixture
def convert(monkeypatch, tmp_path, capsys):
    """Run the tool in ``tmp_path``; returns what it printed."""
    spec = importlib.util.spec_from_file_location('convert_checkpoint', ROOT / 'tools/convert_checkpoint.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['convert_checkpoint.py', *map(str, args)])
        tool.main()
        return capsys.readouterr().out

    return run


def write(path, layout='frdet', classes=2):
    state = tiny(layout, classes)
    if layout == 'frdet':
        torch.save({'state_dict': state, 'meta': {'dataset_meta': {'classes': CLASSES}}, 'optimizer': {}}, path)
    elif layout == 'torchvision':
        torch.save(state, path)
    elif path.suffix == '.pkl':
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({'model': arrays, '__author__': 'Detectron2 Model Zoo'}, 2))
    else:
        torch.save({'model': state, 'iteration': 3, 'scheduler': {}}, path)


def test_one_line(tmp_path, convert):
    write(tmp_path / 'a.pkl', 'detectron2')
    line = convert('a.pkl', 'b.pth', '--to', 'torchvision')
    # 5 of the backbone, 12 layers and 2 predictors of a weight and a bias each
    assert line == 'a.pkl: Faster R-CNN of detectron2, 2 classes, 33 parameters; written to b.pth as torchvision\n'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.pkl', 'b.pth']


def test_what_is_written(tmp_path, convert):
    """Each as its project reads it, by pickle and torch themselves."""
    write(tmp_path / 'a.pth')
    for target, layout in (('d.pkl', 'detectron2'), ('d.pth', 'detectron2'), ('t.pth', 'torchvision')):
        convert('a.pth', target, '--to', layout)
    for layout in ('frdet', 'mmdet2', 'mmdet3'):
        convert('a.pth', f'{layout}.pth', '--to', layout)
    content = pickle.loads((tmp_path / 'd.pkl').read_bytes())
    assert (content['__author__'], content['matching_heuristics']) == ('frdet', False)
    assert all(type(value) is np.ndarray for value in content['model'].values())
    assert_equal({name: torch.from_numpy(value) for name, value in content['model'].items()}, tiny('detectron2'))
    loaded = {p.name: torch.load(p, weights_only=True) for p in tmp_path.glob('*.pth')}
    assert list(loaded['d.pth']) == ['model']
    assert_equal(loaded['d.pth']['model'], tiny('detectron2'))
    assert_equal(loaded['t.pth'], tiny('torchvision'))
    for layout in ('frdet', 'mmdet2', 'mmdet3'):
        assert set(loaded[f'{layout}.pth']) == {'state_dict', 'meta'}
        assert_equal(loaded[f'{layout}.pth']['state_dict'], tiny())
    assert loaded['mmdet2.pth']['meta'] == {'CLASSES': CLASSES, 'layout': 'mmdet2'}
    assert loaded['mmdet3.pth']['meta'] == {'dataset_meta': {'classes': CLASSES}, 'layout': 'mmdet3'}
    assert loaded['frdet.pth']['meta'] == {'dataset_meta': {'classes': CLASSES}}


def test_class_names_from_mmdetection_2_or_unknown(tmp_path, convert):
    torch.save({'state_dict': tiny(), 'meta': {'CLASSES': CLASSES}}, tmp_path / 'a.pth')
    convert('a.pth', 'b.pth', '--to', 'mmdet3')
    written = torch.load('b.pth', weights_only=True)['meta']
    assert written == {'dataset_meta': {'classes': CLASSES}, 'layout': 'mmdet3'}
    write(tmp_path / 't.pth', 'torchvision')
    convert('t.pth', 'c.pth', '--to', 'frdet')
    assert torch.load('c.pth', weights_only=True)['meta'] == {}


def test_classes_and_input(tmp_path, convert):
    write(tmp_path / 't.pth', 'torchvision', classes=90)
    convert('t.pth', 'a.pth', '--to', 'frdet', '--classes', 80, '--input', 'rgb-to-bgr')
    state, layout, classes = read_detector(tmp_path / 'a.pth')
    assert (layout, classes) == ('frdet', None)
    assert_equal(state, change_input(map_coco_classes(tiny(classes=90), 80), source=RGB, target=BGR))


def test_names_follow_the_classes(tmp_path, convert):
    names = tuple(f'c{i}' for i in range(80))
    torch.save({'state_dict': tiny(classes=80), 'meta': {'CLASSES': names}}, tmp_path / 'a.pth')
    convert('a.pth', 'b.pth', '--to', 'frdet', '--classes', 90)
    written = read_detector(tmp_path / 'b.pth')[2]
    assert len(written) == 90
    # Category 12 does not exist.
    assert written[10:13] == ('c10', 'N/A', 'c11')


def test_names_that_are_not_as_many_as_the_classes_are_left_out(tmp_path, convert):
    torch.save({'state_dict': tiny(classes=80), 'meta': {'CLASSES': CLASSES}}, tmp_path / 'a.pth')
    convert('a.pth', 'b.pth', '--to', 'frdet', '--classes', 90)
    assert torch.load('b.pth', weights_only=True)['meta'] == {}


def test_an_existing_file_is_kept_unless_told(tmp_path, convert):
    write(tmp_path / 'a.pth')
    (tmp_path / 'b.pth').write_text('mine')
    with pytest.raises(CheckpointError, match='--overwrite'):
        convert('a.pth', 'b.pth', '--to', 'mmdet2')
    assert (tmp_path / 'b.pth').read_text() == 'mine'
    os.link(tmp_path / 'b.pth', tmp_path / 'opened')
    convert('a.pth', 'b.pth', '--to', 'mmdet2', '--overwrite')
    assert (tmp_path / 'opened').read_text() == 'mine'  # replaced in one step: who reads the old file reads all of it
    assert_equal(read_detector('b.pth')[0], tiny())


@pytest.mark.parametrize('target', ['a.pth', './a.pth', 'link.pth'])
def test_a_file_is_not_written_over_itself(tmp_path, convert, target):
    write(tmp_path / 'a.pth')
    (tmp_path / 'link.pth').symlink_to('a.pth')
    before = (tmp_path / 'a.pth').read_bytes()
    with pytest.raises(CheckpointError, match='is the file to convert'):
        convert('a.pth', target, '--to', 'mmdet2', '--overwrite')
    assert (tmp_path / 'a.pth').read_bytes() == before


@pytest.mark.parametrize('name', ['b.pth', 'b.pkl'])
def test_a_write_that_fails_leaves_nothing(tmp_path, convert, monkeypatch, name):
    write(tmp_path / 'a.pth')
    write(tmp_path / name, 'detectron2')
    before = (tmp_path / name).read_bytes()

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(CheckpointError, match='No space left'):
        convert('a.pth', name, '--to', 'detectron2', '--overwrite')
    assert (tmp_path / name).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ('target', 'layout', 'words'),
    [
        ('b.pkl', 'frdet', 'ends in .pth'),
        ('b.bin', 'detectron2', 'ends in .pkl or .pth'),
        ('none/b.pth', 'frdet', 'No such file'),
    ],
)
def test_a_target_that_cannot_be(tmp_path, convert, target, layout, words):
    write(tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=words):
        convert('a.pth', target, '--to', layout)
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth']


def test_a_backbone_alone(tmp_path, convert):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / 'r18.pth')
    with pytest.raises(CheckpointError, match=r"model\.backbone\.init_cfg=dict\(type='Pretrained'"):
        convert('r18.pth', 'b.pth', '--to', 'frdet')


@pytest.mark.parametrize('name', ['a.pth', 'a.pkl'])
def test_a_truncated_file(tmp_path, convert, name):
    write(tmp_path / name, 'detectron2')
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match='unreadable'):
        convert(name, 'b.pth', '--to', 'frdet')
    assert not (tmp_path / 'b.pth').exists()


@pytest.mark.parametrize('name', ['trap.pth', 'trap.pkl'])
def test_code_is_refused_and_not_run(tmp_path, name):
    """The tool as a user runs it: one worded error."""
    sprung = tmp_path / 'sprung'
    content = {'model': {'w': np.zeros(1)}, '__author__': Trap(sprung)}
    with open(tmp_path / name, 'wb') as file:
        if name.endswith('.pkl'):
            pickle.dump(content, file)
        else:
            torch.save(content, file)
    done = run_tool('convert_checkpoint', tmp_path / name, tmp_path / 'b.pth', '--to', 'frdet', root=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith('error: Checkpoint') and 'refused' in done.stderr and 'Traceback' not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert os.listdir(tmp_path) == [name]


def test_commands_of_the_documentation(tmp_path, convert, monkeypatch):
    write(tmp_path / 'model_final.pkl', 'detectron2', classes=80)
    write(tmp_path / 'fasterrcnn_resnet50_fpn_coco.pth', 'torchvision', classes=90)
    torch.save({'state_dict': tiny(classes=80), 'meta': {}, 'message_hub': {}}, tmp_path / 'epoch_12.pth')
    address = urlparse(torchvision_url('retinanet_resnet50_fpn_v2'))
    monkeypatch.setenv('FRDET_CACHE', str(tmp_path))  # where a file of this name is used unseen
    torch.save(one_stage('torchvision', classes=90), tmp_path / Path(address.path).name)
    text = (ROOT / 'docs/checkpoints.md').read_text()
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith('    python tools/convert')]
    assert len(commands) == 7
    for command in commands:
        _, tool, *args = command
        assert tool == 'tools/convert_checkpoint.py'
        convert(*args)
        assert (tmp_path / args[1]).is_file()
        layout = args[args.index('--to') + 1]
        assert read_detector(tmp_path / args[1])[1] == layout


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=4, num_val=2)


def small_detector(path, layout, shapes):
    """A file of another project, and the options of a config that describes the same network."""
    plain = ['model.neck.norm=None', 'model.roi_head.bbox_head.class_agnostic=False']
    write_detector(path, DETECTORS.build(load_config(QUICK, plain).model).state_dict(), layout)
    return options(shapes, *plain)


def test_evaluating_torchvisions_file(tmp_path, shapes):
    given = small_detector(tmp_path / 't.pth', 'torchvision', shapes)
    done = run_tool('test', QUICK, tmp_path / 't.pth', '--work-dir', tmp_path / 'w', *given, root=tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert output.count('t.pth (layout torchvision)') == 1
    assert 'bbox_mAP' in output


def test_training_from_detectron2s_file(tmp_path, shapes):
    given = small_detector(tmp_path / 'd.pkl', 'detectron2', shapes)
    done = run_tool(
        'train', QUICK, '--work-dir', tmp_path / 'w', '--no-validate', *given, f'load_from={tmp_path / "d.pkl"}',
        'optim_wrapper.optimizer.lr=0.0', 'default_hooks.checkpoint.interval=1', root=tmp_path,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert output.count('d.pkl (layout detectron2)') == 1
    assert 'start anew' not in output and 'missing keys' not in output
    given, trained = (read_detector(tmp_path / name)[0] for name in ('d.pkl', 'w/epoch_1.pth'))
    assert all(torch.equal(trained[name], value) for name, value in given.items() if 'running' not in name)
