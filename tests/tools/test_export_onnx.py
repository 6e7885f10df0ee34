"""The words and exit codes of tools/export_onnx.py. tests/test_examples.py runs it as a user does."""

import importlib.util
import sys

import numpy as np
import pytest

from frdet.apis.export import Difference
from frdet.errors import ExportError
from tests.engine.toy import ROOT


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
    monkeypatch.setattr(tool, 'export_detector', lambda model, path, optimize: path.write_bytes(bytes(1_250_000)))
    assert tool.main() == 0
    assert capsys.readouterr().out == f'{out}: 1.2 MB\n'


@pytest.mark.parametrize(
    ('difference', 'code', 'words'),
    [
        (Difference('a', 3, 0.05, 1e-4, None, 0), 0, 'same'),
        (Difference('a', 3, 0.2, 0.0, None, 0), 1, 'DIFFERS'),
        (Difference('a', 3, 0.0, 0.01, None, 0), 1, 'DIFFERS'),
        (Difference('a', 3, 0.05, 1e-4, 5e-3, 0), 0, 'same'),
        (Difference('a', 3, 0.05, 1e-4, 0.02, 0), 1, 'DIFFERS'),
        (Difference('a', 19, 0.0, 0.0, None, 1), 1, 'DIFFERS'),
        (Difference('a', 20, 0.0, 0.0, None, 1), 0, 'same'),
        (Difference('a', 0, 0.0, 0.0, None, 0), 0, 'finds nothing'),
    ],
)
def test_exit_code(tool, monkeypatch, capsys, difference, code, words):
    given = Difference('b', 0, 0.0, 0.0, None, 0)
    monkeypatch.setattr(tool, 'check_exported', lambda *args: [given, difference])
    assert tool.compare(None, None, []) == code
    assert words in capsys.readouterr().out


def test_drawn_images(tool):
    """What is compared on where no image is given: arrays that ``inference_detector`` takes."""
    images = tool.drawn_images()
    assert [image.shape for image in images] == [(480, 640, 3), (640, 480, 3)]
    assert all(image.dtype == np.uint8 and image.std() > 10 for image in images)
