"""Every command of the README and the documentation, run as it stands in a folder of small data and weights."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from frdet.config import check_config, dump_config, load_config
from frdet.datasets.shapes import write_shapes
from frdet.registry import DETECTORS
from tests import warm
from tests.weights import NARROW, write_r50_pkl

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
QUICK = 'configs/quickstart/demo.py'
R50 = 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'
COMMAND = r'\s*([A-Z_]+=\S+ )*((python|pip|make|torchrun|srun|\.) |for \w+ in .*; do|tools/\w+\.(py|sh))'
WIDTH = 64
BASE_CHANNELS = NARROW['model.backbone.base_channels']
# What a page leaves to the reader; and a training of many epochs.
FILLED = {
    'CONFIG CHECKPOINT': f'{R50} work_dirs/r50_fpn_1x_cocoval/epoch_12.pth',
    'CONFIG': QUICK,
    'their_config.py': QUICK,
    'WORK_DIR': 'work_dirs/demo',
    'by_hand/epoch_12.pth': 'demo/epoch_12.pth',  # here one epoch is trained
    'max_epochs=100': 'max_epochs=2',
    'class_weight=[1,1,4,1]': 'class_weight=[1,1,4,1,1,1,1]',  # the drawn shapes have six classes
    'work_dirs/mine/epoch_4.pth work_dirs/mine/epoch_8.pth work_dirs/mine': 'work_dirs/a/epoch_12.pth work_dirs/b',
    'CHECKPOINT': 'work_dirs/r50_fpn_1x_cocoval/epoch_12.pth',
}

# Only the words of these are checked: that the tool takes the arguments, that the config takes the options.
NOT_RUN = {
    r'tools/(dist|slurm)_|torchrun|srun': 'several GPUs or machines; tests/tools/test_dist.py runs two processes',
    r'download_coco': 'downloads gigabytes; tests/tools/test_download_coco.py serves files of its own',
    r'--slurm': 'needs Slurm; tests/apis/ablation/test_slurm.py writes its job script',
    r'tools/benchmark': 'minutes to hours at real size; tests/tools/test_benchmark.py runs each small',
    r'gpu_check': 'needs a GPU',
    r'torchvision://': 'downloads weights; tests/checkpoints/test_against_torchvision.py loads files like them',
    r'convert_checkpoint': 'tests/tools/test_convert_checkpoint.py runs those of the pages',
    r'convert_dataset': 'tests/tools/test_convert_dataset.py runs those of docs/data_formats.md',
    r'export_onnx': 'a minute each; tests/test_examples.py runs it, tests/apis/export/test_exporting.py the code',
    r'replay': 'needs a step that failed; tests/tools/test_replay.py makes one',
    r'^(pip|\.) ': 'changes the environment',
    r'^make ': 'this very test is part of `make test`',
}


def commands(page: Path) -> list[str]:
    """The commands in a page's code blocks, indented or fenced: continued lines and loops joined, without comments."""
    blocks = re.findall(r'^```{?(\w*).*\n((?s:.*?))^```|((?:^ {4}.*\n)+)', page.read_text(), re.M)
    text = ''.join(fenced or indented for language, fenced, indented in blocks if language in ('', 'bash'))
    text = re.sub(r'[ \t]+#\s.*', '', text)
    text = re.sub(r'\\\n\s*', '', text)
    text = re.sub(
        r'(?ms)^ *for .*?; do\n.*?^ *done$', lambda loop: loop[0].replace('do\n', 'do ').replace('\n', ';'), text
    )
    return [' '.join(line.split()) for line in text.splitlines() if re.match(COMMAND, line)]


# tests/test_own_data_page.py runs these on data of each format.
OWN_DATA = r'data/(cells|new_images)|configs/mine|work_dirs/cells'

ALL = [(page.name, command) for page in PAGES for command in commands(page) if not re.search(OWN_DATA, command)]


def reason(command: str) -> str | None:
    """Why a command is not run."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), None)


RUN = [command for command in dict.fromkeys(command for _, command in ALL) if not reason(command)]
CHECKED = [command for command in dict.fromkeys(command for _, command in ALL) if reason(command)]


def test_commands_are_found():
    """The best-known of each form: README's own, a fenced one, one with a variable, one that is continued."""
    names = {name for name, _ in ALL}
    assert {'README.md', 'quickstart.md', 'running.md', 'plugins.md', 'scaling.md', 'report.md'} <= names
    main = 'python tools/train.py configs/faster_rcnn/r50_fpn_1x_cocoval.py --cfg-options train_dataloader.batch_size=6'
    assert ('README.md', main) in ALL
    assert ('plugins.md', 'PYTHONPATH=docs/examples python tools/train.py docs/examples/my_config.py') in ALL
    assert any('tools/train.py' in command for name, command in ALL if command.startswith('torchrun'))
    assert any(name == 'running.md' and command.startswith('srun') for name, command in ALL)


@pytest.fixture(scope='module')
def sandbox(tmp_path_factory, coco_root):
    """The repository's folder as a user has it after the quick start, with everything smaller."""
    if not coco_root.is_real:
        pytest.skip('the commands need images with the classes of COCO')
    root = tmp_path_factory.mktemp('sandbox')
    (root / 'tools').symlink_to(ROOT / 'tools')
    (root / 'docs').mkdir()
    shutil.copytree(ROOT / 'docs/examples', root / 'docs/examples')
    shutil.copytree(ROOT / 'configs', root / 'configs')
    for path in (root / 'configs').rglob('*.py'):
        shrink(path)
    (root / 'data').mkdir()
    (root / 'data/coco').symlink_to(coco_root.root)
    write_shapes(root / 'data/shapes', num_train=8, num_val=4)

    files = sorted(coco_root.val_dir.glob('*.jpg'))[:4]
    images = [np.asarray(Image.open(file).convert('RGB').resize((160, 128))) for file in files]
    (root / 'pictures/2026-11').mkdir(parents=True)
    for folder in ('.', 'pictures', 'pictures/2026-11'):
        shutil.copy(files[0], root / folder / 'street.jpg')
    video = cv2.VideoWriter(str(root / 'ride.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 5, (160, 128))
    for image in images:
        video.write(image)
    video.release()
    (root / 'cache').mkdir()
    write_r50_pkl(root / 'cache/R-50.pkl', [image[:, :, ::-1] for image in images])
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    model.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, WIDTH)
    model.roi_heads.box_predictor = FastRCNNPredictor(WIDTH, 91)
    torch.save(model.state_dict(), root / 'fasterrcnn_resnet50_fpn_coco-258fb6c6.pth')

    work = root / 'work_dirs'
    done = bash(root, f'python tools/train.py {QUICK}')
    assert done.returncode == 0, done.stderr[-2000:]
    (work / 'demo/epoch_1.pth').rename(work / 'demo/epoch_12.pth')
    for name in 'ab':
        shutil.copytree(work / 'demo', work / name)
    torch.manual_seed(0)
    cfg = load_config(root / R50, {'model.backbone.init_cfg': None})
    detector = DETECTORS.build(cfg.model)
    (work / 'r50_fpn_1x_cocoval').mkdir()
    meta = {'cfg': dump_config(cfg), 'dataset_meta': {'classes': coco_root.classes}}
    torch.save({'state_dict': detector.state_dict(), 'meta': meta}, work / 'r50_fpn_1x_cocoval/epoch_12.pth')
    return root


def shrink(config: Path) -> None:
    """Small images, few of them, one epoch; networks that have few weights to train and to save."""
    text = config.read_text()
    text = text.replace('depth=50,', f'depth=50, base_channels={BASE_CHANNELS},')
    text = re.sub(r'in_channels=\((\d+, )+\d+\)', 'in_channels=None', text)
    if config.parent.name == 'interop':  # the layers of other projects' files
        text = text.replace('backbone=dict(', 'backbone=dict(base_channels=64, ')
    text = re.sub(r'short_side=(800|\(640.*?\)), max_size=1333', 'short_side=96, max_size=160', text)
    text = text.replace('fc_channels=1024', f'fc_channels={WIDTH}')
    text = re.sub(r'max_epochs=\d+', 'max_epochs=1', text)
    text = re.sub(r'(val_interval|checkpoint=dict\(interval)=\d+', r'\1=1', text)
    text = text.replace('num_workers=2', 'num_workers=0').replace('persistent_workers=True', 'persistent_workers=False')
    text = re.sub(r"(type='CocoDataset',)", r'\1 indices=4,', text)
    if config.parent.name == 'studies':
        text = re.sub(r'    (giou|no_warmup)=.*\n', '', text)
        text = text.replace('options = {', "options = {'default_hooks.report': None, ")
        text = text.replace(': 3,', ': 1,').replace('seeds = 3', 'seeds = 2').replace('trials = 12', 'trials = 2')
    config.write_text(text)


def bash(folder: Path, line: str) -> subprocess.CompletedProcess:
    """A line as a user's shell runs it, with this environment's Python."""
    return subprocess.run(
        ['bash', '-o', 'pipefail', '-ec', line],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if name != 'FRDET_DATA_ROOT'},
            'PATH': f'{warm.python().parent}:{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'FRDET_CACHE': str(folder / 'cache'),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )


@contextlib.contextmanager
def new_run(root: Path, line: str) -> Iterator[None]:
    """A training begins where there is no run, as on a reader's machine; then the sandbox's runs are there again."""
    if 'tools/train.py' not in line or '--resume' in line:
        yield
        return
    work, kept = root / 'work_dirs', root / 'kept'
    work.rename(kept)
    try:
        yield
    finally:
        work.mkdir(exist_ok=True)
        for folder in kept.iterdir():
            shutil.rmtree(work / folder.name, ignore_errors=True)
            folder.rename(work / folder.name)
        kept.rmdir()


@pytest.mark.parametrize('line', RUN)
def test_command_runs(sandbox, line):
    for words, value in FILLED.items():
        line = line.replace(words, value)
    with new_run(sandbox, line):
        done = bash(sandbox, line)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in re.findall(r'--out (\S+\.\w+)', line):
        assert (sandbox / name).stat().st_size


# Everything of the tools but their work: what follows the parsing of the arguments does not run.
PARSE = """
import argparse, contextlib, io, json, runpy, sys
def stopped(parse):
    def stop(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        sys.exit(0)
    return stop
for name in ('parse_args', 'parse_intermixed_args'):
    setattr(argparse.ArgumentParser, name, stopped(getattr(argparse.ArgumentParser, name)))
sys.path.insert(0, 'tools')
said = {}
for words in json.loads(sys.argv[1]):
    sys.argv, written = words, io.StringIO()
    try:
        with contextlib.redirect_stderr(written):
            runpy.run_path(words[0], run_name='__main__')
    except SystemExit as end:
        said[' '.join(words)] = written.getvalue() + str(end.code)
print(json.dumps(said))
"""


@pytest.fixture(scope='module')
def parsed(sandbox):
    """What each tool that is not run says about its arguments, and the code that it exits with."""
    lines = [shlex.split(line, comments=True) for line in CHECKED]
    calls = [line[i:] for line in lines for i, word in enumerate(line) if re.fullmatch(r'tools/\w+\.py', word)]
    command = [warm.python(), '-c', PARSE, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=sandbox)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize('line', CHECKED)
def test_words_of_a_command(parsed, line, monkeypatch):
    """A target of the Makefile; or a tool that takes these arguments, and a config that takes these options."""
    words = shlex.split(line, comments=True)
    if words[0] == 'make':
        assert f'\n{words[1]}:' in (ROOT / 'Makefile').read_text()
    elif words[0] == 'pip':
        assert all((ROOT / name).is_file() for name in words if name.endswith('.txt'))
    tool = next((i for i, word in enumerate(words) if word.startswith('tools/')), None)
    if tool is None:
        return
    path = ROOT / words[tool]
    assert path.is_file()
    if path.suffix == '.py':
        assert parsed[' '.join(words[tool:])] == '0'
    config = next((word for word in words if word.startswith('configs/')), None)
    if config:
        options = words[words.index('--cfg-options') + 1 :] if '--cfg-options' in words else []
        monkeypatch.chdir(ROOT)
        check_config(load_config(config, options))
