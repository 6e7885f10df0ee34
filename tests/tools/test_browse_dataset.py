import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'


@pytest.fixture
def browse(monkeypatch, capsys):
    def run(*args, root):
        """The tool in this process; its exit code, output and errors."""
        monkeypatch.chdir(ROOT)
        monkeypatch.setenv('FRDET_DATA_ROOT', str(root))
        monkeypatch.setattr(sys, 'argv', ['tools/browse_dataset.py', *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path('tools/browse_dataset.py', run_name='__main__')
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_shows_the_images_of_a_config(browse, coco_root, tmp_path):
    short = 'train_dataloader.dataset.pipeline.1.short_side=128'
    page = tmp_path / 'new/page.html'
    code, output, error = browse(CONFIG, '--out', page, '--num', 3, '--cfg-options', short, root=coco_root.root)
    assert code == 0, error
    assert output.endswith(f'{page}: {page.stat().st_size / 1e6:.1f} MB\n')
    assert page.read_text().count('<figure data-filtered>') == 6


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        ([CONFIG], 'tools/download_coco.py'),
        (['configs/none.py'], 'configs/none.py'),
        ([CONFIG, '--num', '1000'], 'at most 300'),
    ],
)
def test_errors_in_words(browse, tmp_path, args, words):
    code, _, error = browse(*args, '--out', tmp_path / 'out/page.html', root=tmp_path / 'none')
    assert code == 1 and words in error and 'Traceback' not in error
    assert not (tmp_path / 'out').exists()
