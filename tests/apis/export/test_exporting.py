"""A detector of torchvision's rules on a user's backbone, exported, on real images."""

import contextlib
import functools
import importlib.util
import io
import json
import logging
import re
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch import nn
from torch.nn import functional as F

from frdet.apis import DetInferencer, check_exported, export_detector, inference_detector, init_detector
from frdet.apis.export import exporting, load_exported
from frdet.apis.export.checking import _batches
from frdet.apis.export.exporting import plain_copy
from frdet.config import load_config
from frdet.engine import predict_in_bfloat16
from frdet.errors import CheckpointError, ConfigError, ExportError
from frdet.models.detectors import FasterRCNN
from frdet.ops import loading
from frdet.registry import BACKBONES, DETECTORS
from frdet.structures import DetDataSample
from tests.engine.toy import ROOT
from tests.weights import calibrate_detector

SMALL = {
    'model.backbone.init_cfg': None,
    'model.neck.out_channels': 16,
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.rpn_head.pre_nms_test': 200,
    'model.rpn_head.post_nms_test': 100,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.fc_channels': 32,
    'model.roi_head.bbox_head.num_classes': 5,
    'model.roi_head.max_per_image': 30,
    'model.roi_head.score_thr': 0.5,
    'test_dataloader.dataset.pipeline.1.short_side': 112,
    'test_dataloader.dataset.pipeline.1.max_size': 160,
    'test_dataloader.dataset.pipeline.1.backend': 'pillow',  # as in the code of the page
}
CLASSES, IDS = ('a', 'b', 'c', 'd', 'e'), [3, 1, 4, 15, 'x']


@BACKBONES.register_module(force=True)
class OneConvolutionALevel(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 7, stride=4, padding=3)
        self.levels = nn.ModuleList(nn.Conv2d(16, 16, 3, stride=2, padding=1) for _ in range(3))

    def forward(self, x):
        maps = [self.stem(x).relu()]
        for conv in self.levels:
            maps.append(conv(maps[-1]).relu())
        return tuple(maps)


def build(images, **changes):
    cfg = load_config(ROOT / 'configs/interop/torchvision_r50_fpn.py', {**SMALL, **changes})
    cfg.model.backbone = dict(type='OneConvolutionALevel')
    cfg.model.neck.in_channels = (16,) * 4
    model = DETECTORS.build(cfg.model)
    calibrate_detector(model, images)
    model.cfg, model.dataset_meta = cfg, {'classes': CLASSES, 'category_ids': IDS}
    return model.eval()


@pytest.fixture(scope='module')
def files(coco_root):
    return sorted(coco_root.val_dir.glob('*.jpg'))[:2]


@pytest.fixture(scope='module')
def images(files):
    """Two photographs, (2, 3, 128, 128) float32 BGR."""
    arrays = [np.asarray(Image.open(file).convert('RGB').resize((128, 128)), np.float32) for file in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).flip(1)


@pytest.fixture(scope='module')
def model(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(images)


@pytest.fixture(scope='module')
def written(model, files, tmp_path_factory):
    """The folder of a.onnx and a.pt2, of one tracing, and what the tool printed that wrote them."""
    folder = tmp_path_factory.mktemp('exported')
    spec = importlib.util.spec_from_file_location('export_onnx', ROOT / 'tools/export_onnx.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(exporting, 'export_program', functools.cache(exporting.export_program))
        patch.setattr(tool, 'init_detector', lambda *args: model)
        for name in ('a.onnx', 'a.pt2'):
            words = ['a.py', 'a.pth', '--out', folder / name, '--images', *files]
            patch.setattr(sys, 'argv', ['export_onnx.py', *map(str, words)])
            assert tool.main() == 0
    return folder, printed.getvalue()


@pytest.fixture(scope='module')
def exported(written):
    return written[0]


LINE = (
    r'same +(.*), [\d x]+(?: and [\d x]+)?: (\d+) detections, '
    r'boxes within (\S+) pixels, scores within (\S+), \d unpaired'
)


def test_what_the_tool_compares(written, model):
    """For each of both files. The ONNX file holds every number of the model, and the graph."""
    folder, printed = written
    lines = re.findall(LINE, printed)
    assert [name for name, *_ in lines] == ['image 1', 'image 2', 'image 1, smaller', 'images 1 and 2', 'grey'] * 2
    counts = [int(count) for _, count, *_ in lines]
    assert min(counts[:3]) > 5 and counts[3] > 10 and counts[4] == 0 and counts[:5] == counts[5:]
    assert all(float(box) <= 0.1 and float(score) <= 1e-3 for *_, box, score in lines)
    size, needed = (folder / 'a.onnx').stat().st_size, 4 * sum(p.numel() for p in model.parameters())
    assert needed < size < needed + 1e6 and f'a.onnx: {size / 1e6:.1f} MB' in printed


@pytest.fixture(scope='module', params=['a.onnx', 'a.pt2'])
def run(request, exported):
    return load_exported(exported / request.param)


def by_model(model, batch):
    data = []
    for image in batch:
        meta = dict(img_shape=tuple(image.shape[1:]), ori_shape=tuple(image.shape[1:]))
        data.append({'inputs': image, 'data_samples': DetDataSample(metainfo=meta)})
    with torch.no_grad():
        return [sample.pred_instances for sample in model.test_step(pseudo_collate(data))]


@pytest.mark.parametrize('sizes', [[(96, 160)], [(101, 77)], [(128, 96), (112, 160)], [(160, 160)] * 3], ids=str)
def test_detections_are_those_of_the_model(model, images, run, sizes):
    """What lies beside a smaller image is not a number, and does not matter."""
    batch = [F.interpolate(images[i % 2][None], size)[0] for i, size in enumerate(sizes)]
    height, width = (max(column) for column in zip(*sizes, strict=True))
    inputs = [F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1]), value=torch.nan) for x in batch]
    with torch.no_grad():
        boxes, scores, labels = run(torch.stack(inputs), torch.tensor(sizes))
    assert boxes.shape == (len(sizes), 30, 4) and labels.dtype == torch.int64
    for i, expected in enumerate(by_model(model, batch)):
        count = int((labels[i] >= 0).sum())
        assert count == len(expected) > 5 and len(expected.labels.unique()) > 1
        assert labels[i, count:].eq(-1).all() and scores[i, count:].eq(0).all() and boxes[i, count:].eq(0).all()
        assert (scores[i].diff() <= 0).all()
        # Pairs, since rounding may exchange detections of nearly the same score.
        apart = (boxes[i, :count, None] - expected.bboxes).abs().amax(dim=2)
        same = (apart <= 0.1) & ((scores[i, :count, None] - expected.scores).abs() <= 1e-3)
        same &= labels[i, :count, None] == expected.labels
        assert same.any(dim=0).all() and same.any(dim=1).all()


def test_an_image_without_detections(model, images, run):
    """Alone, and beside one that has some."""
    grey = torch.full((1, 3, 96, 128), 114.0)
    assert len(by_model(model, grey)[0]) == 0
    with torch.no_grad():
        for batch, place in ((grey, 0), (torch.cat([images[:1, :, :96], grey]), 1)):
            boxes, scores, labels = run(batch, torch.tensor([[96, 128]] * len(batch)))
            assert boxes[place].eq(0).all() and scores[place].eq(0).all() and labels[place].eq(-1).all()
        assert (labels[0] >= 0).sum() > 5


@torch.no_grad()
def test_the_smallest_image(run):
    """A .pt2 file needs two cells of p6, whose stride is 64."""
    inputs = torch.zeros(1, 3, 64, 100), torch.tensor([[64, 100]])
    if hasattr(run, 'least'):
        assert run.least == 65
        with pytest.raises(ExportError, match=r'a\.pt2 takes images whose sides have 65 pixels .* 64 x 100: pad or'):
            run(*inputs)
    else:
        assert run(*inputs)[0].shape == (1, 30, 4)


def test_the_check_enlarges_small_images():
    sizes = [[tuple(image.shape) for image in batch] for _, batch in _batches([torch.rand(3, 40, 100)], 65)]
    assert sizes == [[(3, 65, 100)], [(3, 65, 75)], [(3, 65, 100), (3, 65, 75)], [(3, 65, 75)]]


def test_the_onnx_file_needs_nothing_else(exported):
    assert sorted(path.name for path in exported.iterdir()) == ['a.onnx', 'a.pt2']
    file = onnx.load(exported / 'a.onnx', load_external_data=False)
    onnx.checker.check_model(file, full_check=True)
    assert [(opset.domain, opset.version) for opset in file.opset_import] == [('', 18)]
    assert {node.domain for node in file.graph.node} == {''} and not file.functions
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*file.graph.input, *file.graph.output)
    }
    assert shapes == {
        'images': ['batch', 3, 'height', 'width'],
        'image_sizes': ['batch', 2],
        'boxes': ['batch', 30, 4],
        'scores': ['batch', 30],
        'labels': ['batch', 30],
    }
    metadata = {entry.key: json.loads(entry.value) for entry in file.metadata_props}
    assert metadata['classes'] == list(CLASSES) and metadata.keys() == {'classes', 'frdet'}
    facts = metadata['frdet']
    assert facts['classes'] == list(CLASSES) and facts['category_ids'] == IDS
    assert facts['input'] == dict(channel_order='bgr', value_range=[0, 255], layout='NCHW', padding='right and bottom')
    mean, std = [v * 255 for v in (0.485, 0.456, 0.406)], [v * 255 for v in (0.229, 0.224, 0.225)]  # torchvision's
    assert facts['graph'].pop('mean') == pytest.approx(mean) and facts['graph'].pop('std') == pytest.approx(std)
    thresholds = dict(score_thr=0.5, nms_iou_thr=0.5, max_per_image=30)
    assert facts['graph'] == dict(bgr_to_rgb=True, pad_size_divisor=32, **thresholds)
    load, resize, pack = facts['pipeline']
    assert (load['type'], pack['type']) == ('LoadImage', 'PackDetInputs')
    assert resize == dict(
        type='ResizeShortestEdge', short_side=112, max_size=160, interpolation='bilinear', backend='pillow'
    )


def code_of_the_page(word):
    page = (ROOT / 'docs/export.md').read_text()
    (code,) = (block for block in re.findall(r'```python\n(.*?)```', page, re.S) if word in block)
    return code


def test_the_code_of_the_documentation_for_pt2(exported, images, model, monkeypatch):
    names = {'images': images, 'image_sizes': torch.tensor([[128, 128]] * 2)}
    monkeypatch.chdir(exported)
    exec(code_of_the_page('model.pt2').replace('model.pt2', 'a.pt2'), names)
    for scores, expected in zip(names['scores'], by_model(model, images), strict=True):
        torch.testing.assert_close(scores[: len(expected)], expected.scores, rtol=0, atol=1e-3)


def test_the_code_of_the_documentation_for_onnx(exported, model, files, tmp_path, monkeypatch, capsys):
    """Boxes in pixels of the image, as ``inference_detector`` gives them; a line for each."""
    code = code_of_the_page('onnxruntime')
    shutil.copy(exported / 'a.onnx', tmp_path / 'model.onnx')
    shutil.copy(files[0], tmp_path / 'street.jpg')
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    expected = inference_detector(model, files[0]).pred_instances
    count = len(expected)
    assert count > 5
    np.testing.assert_allclose(names['boxes'][:count], expected.bboxes, rtol=0, atol=0.1)
    np.testing.assert_allclose(names['scores'][0, :count], expected.scores, rtol=0, atol=1e-3)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [CLASSES[label] for label in expected.labels]


def paired(found, sample):
    """Whether every detection of a result has a counterpart in a sample of the model, and the other way round."""
    expected = sample.pred_instances
    apart = np.abs(found.boxes[:, None] - expected.bboxes.numpy()).max(axis=2)
    same = (apart <= 0.1) & (np.abs(found.scores[:, None] - expected.scores.numpy()) <= 1e-3)
    same &= found.labels[:, None] == expected.labels.numpy()
    return len(found) > 5 and same.any(axis=0).all() and same.any(axis=1).all()


def test_the_onnx_file_as_a_detector(exported, model, files):
    """As the checkpoint: alone or in batches of images of two sizes, in each form, with a threshold and for classes."""
    detector = DetInferencer(exported / 'a.onnx', score_thr=0.5)
    rgb = np.asarray(Image.open(files[0]).convert('RGB'))[:, :60]
    images = [files[0], files[1], np.ascontiguousarray(rgb[..., ::-1])]
    for run in (detector, lambda *args: list(detector.stream(*args))):
        for batch_size in (1, 2, 3):  # the padding of a batch reaches into its smaller images, in both alike
            expected = inference_detector(model, images, batch_size)
            assert all(map(paired, run(images, batch_size), expected))
    expected = inference_detector(model, images)
    assert paired(detector(rgb, channel_order='rgb'), expected[2])
    by_model = inference_detector(init_detector(exported / 'a.onnx'), files[0])
    assert paired(detector(files[0]), by_model) and by_model.img_path == str(files[0])
    assert detector.classes == CLASSES and detector.category_ids() == IDS
    (whole,) = detector([files[0]])
    least, name = float(np.median(whole.scores)), CLASSES[whole.labels[0]]
    few = DetInferencer(exported / 'a.onnx', score_thr=least, classes=[name])(files[0])
    keep = (whole.scores >= least) & (whole.labels == whole.labels[0])
    np.testing.assert_array_equal(few.boxes, whole.boxes[keep])
    assert {r['category_id'] for r in few.to_coco()} == {IDS[whole.labels[0]]}


def with_metadata(path, target, **metadata):
    """A copy of a file with other metadata."""
    file = onnx.load(path)
    onnx.helper.set_model_props(file, metadata)
    onnx.save(file, target)
    return target


def test_an_onnx_file_that_is_no_detector_of_ours(exported, tmp_path, monkeypatch):
    path = exported / 'a.onnx'
    node = onnx.helper.make_node('Identity', ['x'], ['y'])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in 'xy']
    graph = onnx.helper.make_graph([node], 'g', value[:1], value[1:])
    tiny = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=9)
    onnx.save(tiny, tmp_path / 'tiny.onnx')
    trap = json.dumps(dict(pipeline=[dict(type='os.mkdir', path='sprung')], classes=[], category_ids=[]))
    for metadata in ({}, {'classes': '["a"]'}, {'frdet': '{"pipeline": null}'}):
        other = with_metadata(tmp_path / 'tiny.onnx', tmp_path / 'b.onnx', **metadata)
        with pytest.raises(CheckpointError, match=r'b\.onnx does not say how images are prepared for it: expected'):
            DetInferencer(other)
    with pytest.raises(ConfigError, match="'os.mkdir' is not registered"):
        DetInferencer(with_metadata(tmp_path / 'tiny.onnx', tmp_path / 'b.onnx', frdet=trap))
    for options in (dict(device='cuda'), dict(amp=True), dict(cfg_options=['a=1']), dict(config='a.py')):
        with pytest.raises(ConfigError, match=r'a\.onnx is a whole detector, which runs on the CPU: give no config'):
            DetInferencer(checkpoint=path, **options)
    with pytest.raises(CheckpointError, match='none.onnx: no such file'):
        DetInferencer(tmp_path / 'none.onnx')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ExportError, match=r'needs onnxruntime, .*pip install "frdet\[export\]"'):
        DetInferencer(path)


def test_a_pipeline_that_is_no_plain_data(model, monkeypatch):
    class Step:
        pass

    monkeypatch.setattr(exporting, 'steps_of', lambda cfg: [Step()] * 3)
    with pytest.raises(ExportError, match='pipeline of the test data cannot be written as JSON .*Step'):
        exporting._metadata(model)


def test_the_check(model, exported, files):
    """Each image alone, the first smaller, both together, grey: pairs of all of them, and nothing on grey."""
    differences = check_exported(model, exported / 'a.onnx', files)
    assert len(differences) == 5 and all(d.is_small and d.box < 0.1 and d.score < 1e-3 for d in differences)
    assert [d.detections > 5 for d in differences] == [True] * 4 + [False] and differences[-1].detections == 0
    assert differences[3].detections > max(differences[0].detections, differences[1].detections)
    assert len({d.name for d in differences}) == 5


@pytest.mark.parametrize(('part', 'field'), [('fc_reg', 'box'), ('fc_cls', 'score'), ('fc_cls', 'unpaired')])
def test_the_check_finds_other_weights(model, images, exported, files, part, field):
    """Boxes 0.02 of their width to the right; scores a little higher; a class that is never found."""
    other = plain_copy(model)
    bias = getattr(other.roi_head.bbox_head, part).bias
    with torch.no_grad():
        if field == 'box':
            bias[0::4] += 0.1
        elif field == 'score':
            bias[-1] -= 0.05
        else:
            bias[by_model(model, images[:1])[0].labels[0]] -= 9
    differences = check_exported(other, exported / 'a.onnx', files)
    assert not all(d.is_small for d in differences)
    assert max(getattr(d, field) for d in differences) > {'box': 0.1, 'score': 1e-3, 'unpaired': 0}[field]


def read(file):
    return (
        np.asarray(Image.open(file).convert('RGB').resize((128, 128)), np.float32)[..., ::-1].transpose(2, 0, 1).copy()
    )


def test_what_is_exported_of_other_settings(images):
    """bfloat16, compiling and training mode belong to the model, not to the file."""
    given = build(images).train().double()
    given.compile_features = True
    predict_in_bfloat16(given)
    plain = plain_copy(given)
    assert not plain.training and not plain.compile_features and not plain.predicts_in_bfloat16
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert given.training and given.compile_features and given.predicts_in_bfloat16
    assert {p.dtype for p in given.parameters()} == {torch.float64}


class OwnDetector(FasterRCNN):
    def predict(self, inputs, data_samples):
        return super().predict(inputs, data_samples)


class LooksAtValues(OneConvolutionALevel):
    def forward(self, x):
        return super().forward(x * 2 if x.mean() > 0 else x)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda m: setattr(m, '__class__', OwnDetector), 'OwnDetector.predict is not that of Detector'),
        (lambda m: setattr(m.backbone, '__class__', LooksAtValues), 'torch.export cannot follow this model'),
    ],
)
def test_a_model_that_cannot_be_exported(images, tmp_path, change, message):
    model = build(images)
    change(model)
    logging.disable(logging.CRITICAL)  # of torch's account of where it stopped
    try:
        with pytest.raises(ExportError, match=message):
            export_detector(model, tmp_path / 'a.pt2')
    finally:
        logging.disable(logging.NOTSET)
    assert not list(tmp_path.iterdir())


def test_no_detector(tmp_path):
    with pytest.raises(ExportError, match='Linear'):
        export_detector(nn.Linear(2, 2), tmp_path / 'a.pt2')


@pytest.mark.parametrize(
    ('name', 'message'),
    [('a.pth', 'ends in .pth: expected .onnx or .pt2'), ('a', 'ends in nothing'), ('b/a.onnx', 'b is no folder')],
)
def test_a_target_that_cannot_be(model, tmp_path, name, message):
    with pytest.raises(ExportError, match=message):
        export_detector(model, tmp_path / name)


def test_a_file_that_cannot_be_written(model, tmp_path, monkeypatch):
    (tmp_path / 'a.pt2').mkdir()
    monkeypatch.setattr(exporting, 'export_program', lambda model: None)
    monkeypatch.setattr(exporting, '_as_pt2', lambda program: b'1')
    with pytest.raises(ExportError, match='a.pt2 cannot be written .Is a directory'):
        export_detector(model, tmp_path / 'a.pt2')
    assert [path.name for path in tmp_path.iterdir()] == ['a.pt2']


@pytest.mark.parametrize('package', ['onnx', 'onnxscript', 'onnxruntime'])
def test_a_missing_package(model, exported, files, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf'needs {package}, .*pip install "frdet\[export\]"'):
        if package == 'onnxruntime':
            check_exported(model, exported / 'a.onnx', files)
        else:
            export_detector(model, tmp_path / 'a.onnx')


def test_without_the_extension(model, tmp_path, monkeypatch):
    status = loading.Status((), {'cpu': 'libfrdet_cpu.so has not been built'})
    monkeypatch.setattr(loading, 'status', lambda: status)
    with pytest.raises(ExportError, match="needs frdet's operators, libfrdet_cpu.so has not been built"):
        export_detector(model, tmp_path / 'a.pt2')


def test_a_file_that_onnx_runtime_refuses(model, files, tmp_path):
    (tmp_path / 'a.onnx').write_bytes(b'no graph')
    with pytest.raises(ExportError, match='ONNX Runtime refuses'):
        check_exported(model, tmp_path / 'a.onnx', files)
