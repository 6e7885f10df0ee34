"""The detectors of docs/examples, each a user's file and a config: every tool works with them as with Faster R-CNN."""

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torchvision.models import get_model

from frdet.datasets.shapes import write_shapes
from tests.tools.test_train_and_test import ROOT, run_tool
from tests.weights import NARROW_WORDS

FOLDER = ROOT / 'docs/examples'
#: The example's folder -> its module, its config, and the lines that a user writes at most.
EXAMPLES = {
    'retina': ('retina.py', 'retina_shapes.py', 150),
    'cascade': ('cascade.py', 'cascade_shapes.py', 80),
    'torchvision_backbone': ('torchvision_backbone.py', 'mobilenet_shapes.py', 40),
}
#: The one-stage detector learns its two images by heart; two steps show that the others train.
STEPS = {'retina': 32, 'cascade': 2, 'torchvision_backbone': 2}


@pytest.mark.parametrize('name', EXAMPLES)
def test_a_users_file_is_short(name):
    module, _, most = EXAMPLES[name]
    assert len((FOLDER / name / module).read_text().splitlines()) < most


class Run:
    """A training of an example, and the tools on what it left."""

    def __init__(self, name: str, folder: Path):
        self.name = name
        self.folder = folder
        self.work = folder / 'work'
        self.shapes = write_shapes(folder / 'shapes', num_train=2, num_val=1)
        self.config = FOLDER / name / EXAMPLES[name][1]
        self.options = [
            f'{split}_dataloader.dataset.{option}'
            for split in ('train', 'val', 'test')
            for option in (
                f'data_root={self.shapes}',
                'ann_file=annotations/instances_train2017.json',
                'data_prefix.img=train2017/',
                'pipeline.1.short_side=72',
            )
        ]
        if name != 'torchvision_backbone':
            self.options += NARROW_WORDS
        else:
            self.weights = folder / 'mobilenet_v3_small.pth'
            with torch.random.fork_rng():
                torch.save(get_model('mobilenet_v3_small', weights=None).state_dict(), self.weights)
            self.options.append(f'model.backbone.init_cfg.checkpoint={self.weights}')
        self.trained = self.train(STEPS[name])

    def tool(self, tool: str, *words: object, options: Sequence[str] = ()) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(self.config.parent), os.environ.get('PYTHONPATH', '')])
        given = ['--cfg-options', *self.options, *options] if tool != 'report' else []
        return run_tool(tool, *words, *given, root=self.shapes, PYTHONPATH=path)

    def output(self, tool: str, *words: object, options: Sequence[str] = ()) -> str:
        done = self.tool(tool, *words, options=options)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def train(self, epochs: int, *words: object) -> str:
        """``epochs`` of one step; both images are in it."""
        return self.output('train', self.config, '--work-dir', self.work, *words, options=[
            'train_dataloader.batch_size=2', 'train_dataloader.dataset.pipeline.2.prob=0.0',
            'auto_scale_lr.base_batch_size=2',
            f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}', 'randomness.seed=0',
            f'default_hooks.checkpoint.interval={epochs}', 'default_hooks.logger.interval=1',
            'param_scheduler.0.end=10', 'param_scheduler.1.milestones=[24]', 'param_scheduler.1.end=32',
        ])  # fmt: skip

    @property
    def checkpoint(self) -> Path:
        return self.work / f'epoch_{STEPS[self.name]}.pth'

    def logged(self, key: str) -> list[float]:
        files = sorted(self.work.glob('*/vis_data/scalars.json'))
        return [r[key] for file in files for line in file.read_text().splitlines() if key in (r := json.loads(line))]


@pytest.fixture(scope='module', params=EXAMPLES)
def run(request, tmp_path_factory):
    return Run(request.param, tmp_path_factory.mktemp(request.param))


def test_training(run):
    losses = {
        'retina': ('loss_cls', 'loss_bbox', 'num_pos'),
        'cascade': ('s0.loss_cls', 's0.loss_bbox', 's1.loss_cls', 's1.loss_bbox', 'loss_rpn_cls'),
        'torchvision_backbone': ('loss_cls', 'loss_bbox', 'loss_rpn_cls', 'loss_rpn_bbox'),
    }[run.name]
    for name in ('loss', *losses):
        values = run.logged(name)
        assert len(values) == STEPS[run.name]
        assert torch.tensor(values).isfinite().all() and values[0] > 0
    assert len(run.logged('coco/bbox_mAP')) == 1
    assert run.checkpoint.exists()
    if run.name == 'retina':
        assert run.logged('coco/bbox_mAP')[0] > 0.5
    if run.name == 'torchvision_backbone':
        assert f'backbone from {run.weights}, ' in run.trained
        file, now = (torch.load(path, weights_only=True) for path in (run.weights, run.checkpoint))
        names = [name for name in file if re.match(r'features.*\.0\.weight', name)]
        assert len(names) > 10
        # Two steps of a learning rate below 0.01, along gradients whose norm is at most 20.
        far = [n for n in names if (file[n] - now['state_dict'][f'backbone.body.{n}']).norm() > 0.4]
        assert not far


def test_testing(run):
    """The numbers are those of the validation."""
    printed = run.output('test', run.config, run.checkpoint, '--work-dir', run.folder / 'test')
    found = float(re.search(r'coco/bbox_mAP: (\S+)', printed)[1])
    assert found == pytest.approx(run.logged('coco/bbox_mAP')[0], abs=1e-4)


def test_data_are_checked(run):
    printed = run.output('check_data', run.config)
    assert '2 images, 7 annotations, 6 categories' in printed and '| error' not in printed


def test_detecting(run):
    out = run.folder / 'detected'
    run.output('detect', run.shapes / 'train2017', run.config, run.checkpoint, '--out', out, '--score-thr', '0.0')
    assert len(list(out.glob('*.jpg'))) == 2
    records = json.loads((out / 'detections.json').read_text())
    assert {'bbox', 'score', 'category_id', 'file_name'} <= set(records[0])


def test_flops(run):
    path = run.folder / 'flops.json'
    run.output('flops', run.config, '--size', '64', '64', '--json', path)
    stages = {stage['name']: stage for stage in json.loads(path.read_text())['stages']}
    total = stages.pop('total')
    assert total['flops'] == sum(stage['flops'] for stage in stages.values())
    part = {'retina': 'head', 'cascade': 'roi_head.bbox_heads', 'torchvision_backbone': 'backbone'}[run.name]
    assert sum(stage['flops'] for name, stage in stages.items() if name.startswith(part)) > 0


def test_a_step_is_inspected(run):
    """What has no section is said in a line: a one-stage detector has no proposals, and no RoIs."""
    page = run.folder / 'step.html'
    printed = run.output('inspect_step', run.config, '--image', 1, 2, '--out', page)
    headings = re.findall(r'<h2 id[^>]*>([^<]+)', page.read_text())
    assert {'The parts', 'Data', 'Anchors and their matches', 'Losses', 'Gradients and update'} <= set(headings)
    (missing,) = re.findall('^not shown: (.*)', printed, re.M) or ['']
    assert ('Objectness and proposals' in missing) == (run.name == 'retina')
    assert ('RoIs and their refinement' in missing) == (run.name != 'torchvision_backbone')
    assert not any(heading in missing for heading in headings)


def test_report(run):
    run.output('report', run.work)
    text = (run.work / 'report.html').read_text()
    loss = {'cascade': 's1.loss_bbox'}.get(run.name, 'loss_cls')
    assert loss in text and 'bbox_mAP' in text


def test_exporting(run):
    """The tool compares the file with the model. tests/apis/export exports a user's backbone, and a cascade to ONNX."""
    if run.name != 'retina':
        pytest.skip('tracing it takes half a minute, and its parts are like those that tests/apis/export exports')
    out = run.folder / 'model.pt2'
    (image, _) = sorted((run.shapes / 'train2017').glob('*.jpg'))
    printed = run.output('export_onnx', run.config, run.checkpoint, '--out', out, '--images', image)
    counts = [int(count) for count in re.findall(r'^same .*: (\d+) detections', printed, re.M)]
    assert len(counts) == 4 and counts[0] > 0
    assert 'differs' not in printed and out.stat().st_size > 1e6


MISTAKES = {
    'retina': [
        ('model.head.pre_nm=9', r"model\.head has no 'pre_nm': did you mean pre_nms"),
        (
            'model.head.assigner.type=RandomSampler',
            r'model\.head\.assigner .*is a sampler, and stands where',
        ),
    ],
    'cascade': [
        (
            'model.roi_head.bbox_heads.1.num_fc=1',
            r"model\.roi_head\.bbox_heads\.1 has no 'num_fc': did you mean",
        ),
        (
            'model.roi_head.assigners.0.type=RandomSampler',
            r'model\.roi_head\.assigners\.0 .*is a sampler, and stands where',
        ),
    ],
    'torchvision_backbone': [('model.backbone.node=a', r"model\.backbone has no 'node': did you mean nodes")],
}


def test_mistakes_in_the_config(run):
    for option, message in MISTAKES[run.name]:
        done = run.tool('check_data', run.config, options=[option])
        assert done.returncode == 1 and 'Traceback' not in done.stderr
        assert re.search(message, done.stderr), done.stderr


def test_other_classes(run):
    """Fine-tuning: the layers that depend on the classes start anew, and nothing else."""
    anew = {
        'retina': 'other classes: head.retina_cls',  # 9 outputs a class; 54 might be 6 a class and the background, too
        'cascade': '6 classes, the model 2: roi_head.bbox_heads.0.fc_cls and roi_head.bbox_heads.1.fc_cls',
    }
    if run.name not in anew:
        pytest.skip('its classes are those of the shipped box head')
    printed = run.output('train', run.config, '--work-dir', run.folder / 'other', options=[
        f'load_from={run.checkpoint}', 'train_dataloader.batch_size=2', 'train_cfg.max_epochs=1', 'val_evaluator=None',
        'val_dataloader=None', 'val_cfg=None',
        'train_dataloader.dataset.metainfo.classes=("circle","square")',
    ])  # fmt: skip
    assert f'has {anew[run.name]} start anew' in printed


def test_resuming(run):
    """Last, because the run goes on."""
    steps = STEPS[run.name]
    run.train(steps + 1, '--resume')
    assert run.logged('iter')[-2:] == [steps, steps + 1]
    assert (run.work / f'epoch_{steps + 1}.pth').exists()
