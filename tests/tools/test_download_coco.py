import subprocess
from pathlib import Path

from tests import warm

ROOT = Path(__file__).resolve().parents[2]


def download(*args):
    command = [warm.python(), 'tools/download_coco.py', *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_no_network_is_said_in_words(tmp_path):
    done = download('--root', tmp_path / 'coco', '--splits', 'val', '--base-url', 'http://127.0.0.1:1')
    assert done.returncode == 1
    assert 'annotations_trainval2017.zip cannot be downloaded' in done.stderr
    assert 'run this again' in done.stderr
    assert 'Traceback' not in done.stdout + done.stderr


def test_help():
    done = download('--help')
    assert done.returncode == 0
    assert '--splits' in done.stdout
