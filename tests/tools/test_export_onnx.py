"""tools/export_onnx.py on the shipped R18 and real images, and the code of docs/export.md on what it wrote."""

import contextlib
import importlib.util
import io
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from frdet.apis import inference_detector, init_detector
from frdet.apis.export import Difference
from frdet.config import load_config
from frdet.errors import ExportError
from frdet.registry import DETECTORS
from tests.engine.toy import ROOT
from tests.tools.test_train_and_test import run_tool
from tests.weights import calibrate_detector

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'
SMALL = ['model.roi_head.bbox_head.fc_channels=32', 'model.roi_head.score_thr=0.5']
CLASSES = ('disc', 'square', 'cross', 'star', 'ring', 'bar')


@pytest.fixture(scope='module')
def files(coco_root):
    return sorted(coco_root.val_dir.glob('*.jpg'))[:2]


@pytest.fixture(scope='module')
def checkpoint(files, tmp_path_factory):
    arrays = [np.asarray(Image.open(file).convert('RGB').resize((160, 128)), np.float32) for file in files]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(load_config(ROOT / CONFIG, SMALL).model)
        calibrate_detector(model, torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).flip(1))
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': CLASSES}}}, path)
    return path


def export(checkpoint, out, *options):
    return run_tool(
        'export_onnx', CONFIG, checkpoint, '--out', out, *options, '--cfg-options', *SMALL, root=checkpoint.parent
    )


@pytest.fixture(scope='module')
def written(checkpoint, files, tmp_path_factory):
    """A folder with model.onnx and street.jpg, and what the tool printed."""
    folder = tmp_path_factory.mktemp('written')
    done = export(checkpoint, folder / 'model.onnx', '--images', *files)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(files[0], folder / 'street.jpg')
    return folder, done.stdout


LINE = (
    r'same +(.*), [\d x]+(?: and [\d x]+)?: (\d+) detections, '
    r'boxes within (\S+) pixels, scores within (\S+), \d unpaired'
)


def test_what_is_compared(written):
    folder, printed = written
    lines = re.findall(LINE, printed)
    assert [name for name, *_ in lines] == ['image 1', 'image 2', 'image 1, smaller', 'images 1 and 2', 'grey']
    counts = [int(count) for _, count, *_ in lines]
    assert min(counts[:3]) > 10 and counts[3] > 20 and counts[4] == 0
    assert all(float(box) <= 0.1 and float(score) <= 1e-3 for *_, box, score in lines)
    size = (folder / 'model.onnx').stat().st_size
    # 4 bytes a parameter, and the graph: of R18-FPN with 64 channels 12 million
    assert 11.5e6 < size / 4 < 12.5e6 and f'model.onnx: {size / 1e6:.1f} MB' in printed


def test_the_code_of_the_documentation(written, checkpoint, files, monkeypatch):
    """Boxes in pixels of the image, as ``inference_detector`` gives them; a line for each."""
    page = (ROOT / 'docs/export.md').read_text()
    (code,) = (block for block in re.findall(r'```python\n(.*?)```', page, re.S) if 'onnxruntime' in block)
    assert code.count('800') == code.count('1333') == 1
    monkeypatch.chdir(written[0])
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(code.replace('800', '112').replace('1333', '224'), names)
    model = init_detector(ROOT / CONFIG, checkpoint, 'cpu', SMALL)
    expected = inference_detector(model, files[0]).pred_instances
    count = len(expected)
    assert count > 10
    np.testing.assert_allclose(names['boxes'][:count], expected.bboxes, rtol=0, atol=0.1)
    np.testing.assert_allclose(names['scores'][0, :count], expected.scores, rtol=0, atol=1e-3)
    lines = printed.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [CLASSES[label] for label in expected.labels]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('export_onnx', ROOT / 'tools/export_onnx.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(('out', 'message'), [('a.pb', 'expected .onnx or .pt2'), ('none/a.onnx', 'is no folder')])
def test_a_target_that_cannot_be(tool, tmp_path, monkeypatch, out, message):
    """Said before the model, here none, is read."""
    monkeypatch.setattr(sys, 'argv', ['export_onnx.py', 'none.py', 'none.pth', '--out', str(tmp_path / out)])
    with pytest.raises(ExportError, match=message):
        tool.main()


def test_no_check(tool, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'a.pt2'
    monkeypatch.setattr(sys, 'argv', ['export_onnx.py', 'a.py', 'a.pth', '--out', str(out), '--no-check'])
    monkeypatch.setattr(tool, 'init_detector', lambda *args: None)
    monkeypatch.setattr(tool, 'export_detector', lambda model, path: path.write_bytes(bytes(1_250_000)))
    assert tool.main() == 0
    assert capsys.readouterr().out == f'{out}: 1.2 MB\n'


@pytest.mark.parametrize(
    ('difference', 'code', 'words'),
    [
        (Difference('a', 3, 0.05, 1e-4, 0), 0, 'same'),
        (Difference('a', 3, 0.2, 0.0, 0), 1, 'DIFFERS'),
        (Difference('a', 3, 0.0, 0.01, 0), 1, 'DIFFERS'),
        (Difference('a', 19, 0.0, 0.0, 1), 1, 'DIFFERS'),
        (Difference('a', 20, 0.0, 0.0, 1), 0, 'same'),
        (Difference('a', 0, 0.0, 0.0, 0), 0, 'finds nothing'),
    ],
)
def test_exit_code(tool, monkeypatch, capsys, difference, code, words):
    given = Difference('b', 0, 0.0, 0.0, 0)
    monkeypatch.setattr(tool, 'check_exported', lambda *args: [given, difference])
    assert tool.compare(None, None, []) == code
    assert words in capsys.readouterr().out


def test_drawn_images(tool):
    """What is compared on where no image is given: arrays that ``inference_detector`` takes."""
    images = tool.drawn_images()
    assert [image.shape for image in images] == [(480, 640, 3), (640, 480, 3)]
    assert all(image.dtype == np.uint8 and image.std() > 10 for image in images)
