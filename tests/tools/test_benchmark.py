"""Each measurement at a tiny size: what it prints and writes, not how long anything takes."""

import importlib.util
import json
from types import ModuleType
from typing import Any

import pytest
import torch
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead

from frdet.config import load_config
from frdet.datasets import write_shapes
from frdet.errors import ConfigError, DataError
from tests import warm
from tests.engine.toy import ROOT


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('benchmark', ROOT / 'tools/benchmark.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, tmp_path, monkeypatch, capsys):
    """Runs a command; returns its rows, after checking that the printed table has them."""
    monkeypatch.setattr('sys.executable', str(warm.python()))  # which starts the processes of a command

    def call(*words: object) -> list[dict[str, Any]]:
        monkeypatch.setattr('sys.argv', ['benchmark.py', *map(str, words), '--json', str(tmp_path / 'table.json')])
        tool.main()
        rows = json.loads((tmp_path / 'table.json').read_text())['rows']
        table = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
        assert table[0] == f'| {" | ".join(rows[0])} |'
        assert len(table) == 2 + len(rows)
        return rows

    return call


@pytest.fixture
def small(tool, monkeypatch):
    """Both projects build 18 layers and a narrow box head, which takes a third of the time."""
    from benchmarks import models

    changes = {
        'model.backbone.depth': 18,
        'model.neck.in_channels': (64, 128, 256, 512),
        'model.roi_head.bbox_head.fc_channels': 16,
    }

    def faster_rcnn(num_classes):
        heads = dict(box_head=TwoMLPHead(256 * 7 * 7, 16), box_predictor=FastRCNNPredictor(16, num_classes))
        return FasterRCNN(resnet_fpn_backbone(backbone_name='resnet18', weights=None), **heads)

    family = models.FAMILIES['faster_rcnn']
    monkeypatch.setitem(models.FAMILIES, 'faster_rcnn', family._replace(build=faster_rcnn))
    monkeypatch.setattr(models, 'load_config', lambda path, options: load_config(path, {**options, **changes}))


LOSSES = ('loss', 'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox')


def test_training_beside_torchvision(run, small, coco_root, monkeypatch):
    monkeypatch.setenv('FRDET_DATA_ROOT', str(coco_root.root))
    words = ('--against', 'torchvision', '--batch', 1, '--short-side', 96, '--rounds', 1, '--no-memory')
    ours, theirs = run('train', *words)
    assert (ours['what'], theirs['what']) == ('frdet', 'torchvision')
    for row in (ours, theirs):
        assert row['median s'] == row['s/image'] > 0
        assert 0 < row['% outside products'] < 100
        assert row['loss'] == pytest.approx(sum(row[name] for name in LOSSES[1:]), rel=1e-5)
    assert theirs['ratio'] == 1
    assert ours['ratio'] == pytest.approx(theirs['median s'] / ours['median s'])
    # The same weights and images; the samples differ.
    assert ours['loss'] == pytest.approx(theirs['loss'], rel=0.2)


PEAK = """
import json
from benchmarks.timing import process_mib
print(json.dumps(process_mib('VmHWM')))
"""


def test_training_in_bfloat16_where_it_is_native_on_drawn_images(run, monkeypatch):
    from benchmarks.timing import run_python

    monkeypatch.delenv('FRDET_DATA_ROOT', raising=False)
    amp = ['--amp'] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else []  # emulated, it takes minutes
    (row,) = run('train', *amp, '--batch', 2, '--short-side', 64, '--rounds', 1)
    assert row['s/image'] == row['median s'] / 2
    # 41 million weights in float32 are 158 MiB, and those trained have a gradient and a momentum.
    assert row['peak MiB'] > run_python(PEAK) + 450


def test_inference_beside_torchvision(run, small, coco_root, monkeypatch):
    monkeypatch.setenv('FRDET_DATA_ROOT', str(coco_root.root))
    ours, theirs = run('infer', '--against', 'torchvision', '--short-side', 96, '--rounds', 1, '--no-memory')
    assert ours['detections'] == pytest.approx(theirs['detections'], rel=0.02)
    assert ours['detections'] > 20
    assert ours['mean score'] == pytest.approx(theirs['mean score'], rel=0.02)


def test_the_families_that_can_be_asked_for(tool):
    from benchmarks import families

    assert tuple(families.FAMILIES) == tool.FAMILIES


def test_convolutions_and_products_are_told_from_the_rest(tool):
    """The least of five measurements: another process may take the core between two products."""
    from benchmarks.steps import share_outside_products

    def share(step):
        return min(share_outside_products(step, torch.device('cpu')) for _ in range(5))

    a = torch.rand(400, 400)
    assert share(lambda: a @ a @ a @ a) < 20
    assert share(lambda: torch.nn.functional.conv2d(a[None, None], a[None, None, :9, :9])) < 20
    assert share(lambda: a.exp().log().sin()) == 100


def test_operators_beside_torchvision(run):
    rows = run('ops', '--only', ' 100 boxes', '--rounds', 1)
    assert [row['operator'] for row in rows] == ['nms, 100 boxes']
    assert rows[0]['ratio'] == pytest.approx(rows[0]['torchvision ms'] / rows[0]['frdet ms'])


def test_overlapping_kernels_count_once(tool):
    from benchmarks.steps import covered

    # 0 to 4 is covered by two, one of them inside the other; 6 to 7; 9 to 9 is nothing.
    assert covered([(6, 7), (0, 4), (1, 2), (3, 4), (9, 9)]) == 5
    assert covered([(0, 2), (1, 3)]) == 3
    assert covered([]) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_share_of_the_gpu(run):
    row, _ = run('gpu', '--batch', 1)
    assert (row['images'], row['dtype']) == (1, 'float32')
    assert 0 < row['% GPU busy'] <= 105  # kernels are a little slower under the profiler


def test_input(run, coco_root, monkeypatch):
    """The times are given: 10 ms and 20 ms, and for the steps 4, 3, 2 and 1 ms."""
    from benchmarks import data, timing

    def alternate(runs, *args):
        for one in runs.values():
            one()
        seconds = (0.01, 0.02, 0.004, 0.003, 0.002, 0.001)
        return {name: timing.Times([time]) for name, time in zip(runs, seconds, strict=True)}

    monkeypatch.setattr(data, 'alternate', alternate)
    rows = run('input', '--images', coco_root.val_dir, '--count', 3, '--short-side', 200, '--rounds', 1)
    assert [row['what'].split()[-1] for row in rows] == [
        'frdet', 'NumPy', 'LoadImage', 'ResizeShortestEdge', 'RandomFlip', 'PackDetInputs',
    ]  # fmt: skip
    assert [row['ms an image'] for row in rows] == pytest.approx([10, 20, 4, 3, 2, 1])
    assert [row['% of the plain way'] for row in rows] == pytest.approx([50, 100, 20, 15, 10, 5])


@pytest.mark.filterwarnings('ignore:This DataLoader will create')
def test_workers_share_the_records(run):
    rows = run('memory', '--records', 20000, '--workers', 3, '--epochs', 2)
    assert [row['epoch'] for row in rows] == [1, 2]
    for row in rows:
        assert 0.9 < row['copies of the records'] < 1.3
        assert row['PSS of a worker, MiB'] > 1


def test_start(run, monkeypatch):
    from benchmarks import training

    few = dict(num_train=12, num_val=2)  # drawing all takes seconds
    monkeypatch.setattr(training, 'write_shapes', lambda root: write_shapes(root, **few))
    rows = run('start', '--rounds', 1, '--steps', 2)
    assert len(rows) == 5
    assert all(row['median s'] > 0 for row in rows)
    assert 'first training step' in rows[-1]['what']


def test_growth(run, small, tmp_path, monkeypatch):
    from benchmarks import steps

    values = {'batch': (1, 2), 'side': (400, 1200), 'boxes': (1, 100), 'classes': (80, 160)}
    sweeps = {size: (name, values[size]) for size, (name, _) in steps.SWEEPS.items()}
    monkeypatch.setattr(steps, 'SWEEPS', sweeps)
    rows = run('growth', '--scale', 0.05, '--rounds', 1, '--plot', tmp_path / 'new/growth.svg')
    assert [(row['what'], row['value']) for row in rows] == [
        *[('images', 1), ('images', 2), ('short side', 20), ('short side', 60)],
        *[('boxes an image', 1), ('boxes an image', 100), ('classes', 80), ('classes', 160)],
    ]
    # Pixels: 60 squared is 9 times 20 squared.
    assert [row['linear growth would be'] for row in rows] == [1, 2, 1, 9, 1, 100, 1, 2]
    assert rows[1]['times the smallest'] == pytest.approx(rows[1]['median s'] / rows[0]['median s'])
    assert '<svg' in (tmp_path / 'new/growth.svg').read_text()


def test_determinism(run, small, monkeypatch):
    """Each side runs under its own setting, and none of it stays."""
    seen = []
    from benchmarks import steps

    steps_of = steps.steps_of
    monkeypatch.setattr(steps, 'steps_of', lambda args: lambda point: watched(steps_of(args)(point), seen))
    usual, exact = run('determinism', '--scale', 0.05, '--rounds', 1)
    assert seen == [False, True] * 2 and not torch.are_deterministic_algorithms_enabled()
    assert (usual['what'], usual['times'], exact['what']) == ('as usual', 1, '--deterministic')
    assert exact['times'] == pytest.approx(exact['median s'] / usual['median s'])


def watched(step, seen):
    def run():
        seen.append(torch.are_deterministic_algorithms_enabled())
        step()

    return run


def test_evaluation(run):
    ours, reference = run('eval', '--count', 20, '--detections', 30, '--rounds', 1)
    assert (ours['evaluator'], reference['evaluator']) == ('hotcoco', 'pycocotools')
    assert ours['times as fast'] == pytest.approx(reference['s, median'] / ours['s, median'])
    assert ours['the same arrays'] == 'yes'


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ('train --batch 0', "'0': expected a whole number of at least 1"),
        ('train --device abacus', "'abacus' is no device: expected cpu or cuda"),
        ('train --against detectron2', "invalid choice: 'detectron2'"),
        ('growth --scale -1', "'-1': expected a number above 0, at most 10"),
        ('fly', "invalid choice: 'fly'"),
    ],
)
def test_mistakes_in_options(tool, capsys, words, message):
    with pytest.raises(SystemExit, match='2'):
        tool.parse_args(words.split())
    assert message in capsys.readouterr().err


def test_mistakes_about_data_and_device(tool, tmp_path, monkeypatch, coco_root):
    def measure(*words: object) -> None:
        monkeypatch.setattr('sys.argv', ['benchmark.py', *map(str, words)])
        tool.main()

    monkeypatch.delenv('FRDET_DATA_ROOT', raising=False)
    with pytest.raises(DataError, match='No images to read: give a folder with --images, or set FRDET_DATA_ROOT'):
        measure('input')
    with pytest.raises(DataError, match=r'There is no folder .*none: give one that holds images'):
        measure('input', '--images', tmp_path / 'none')
    with pytest.raises(DataError, match=r'holds no image \(\.jpg'):
        measure('input', '--images', tmp_path)
    monkeypatch.setenv('FRDET_DATA_ROOT', str(coco_root.root))
    with pytest.raises(DataError, match=r'images with boxes: expected at least --batch, 99999'):
        measure('train', '--batch', 99999)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match='^gpu, but torch finds no GPU here$'):
            measure('gpu')
        with pytest.raises(ConfigError, match='--device cuda, but torch finds no GPU here: use --device cpu'):
            measure('train', '--device', 'cuda')
