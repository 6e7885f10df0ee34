import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import warm
from tests.signals import heed_ctrl_c

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path):
    """A config, and a writer of its annotations: ``count`` records of one image of noise."""
    (tmp_path / 'images').mkdir()
    noise = np.random.randint(0, 255, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'images' / 'a.png')
    dataset = f"dict(type='CocoDataset', data_root='{tmp_path}', ann_file='ann.json', data_prefix=dict(img='images'))"
    (tmp_path / 'config.py').write_text(f'val_dataloader = dict(dataset={dataset})\n')

    def write(count, width=800):
        record = {'file_name': 'a.png', 'width': width, 'height': 600}
        content = {
            'images': [{'id': i, **record} for i in range(count)],
            'annotations': [{'image_id': 0, 'category_id': 1, 'bbox': [1, 2, 30, 40]}],
            'categories': [{'id': 1, 'name': 'a'}],
        }
        (tmp_path / 'ann.json').write_text(json.dumps(content))
        return tmp_path / 'config.py'

    return write


def start(python, *args):
    command = [python, 'tools/check_data.py', *map(str, args)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=heed_ctrl_c, **pipes)


@pytest.mark.parametrize(('width', 'code'), [(800, 0), (900, 1)])
def test_exit_code(data, width, code):
    tool = start(warm.python(), data(1, width), '--images', '--workers', 1)
    out, err = tool.communicate(timeout=120)
    assert tool.returncode == code, err
    assert ('Nothing to report' in out) == (code == 0)
    assert ('image of another size' in out) == (code == 1)


@pytest.mark.parametrize(
    ('send', 'number', 'code'),
    [
        (os.killpg, signal.SIGINT, 130),  # Ctrl-C: to the tool and to its processes
        (os.kill, signal.SIGTERM, -signal.SIGTERM),
    ],
)
def test_leaves_no_process_when_stopped(data, send, number, code):
    """Three thousand images take half a minute: the tool is stopped as soon as its processes are there."""
    tool = start(sys.executable, data(3000), '--images', '--workers', 2)
    try:
        children = Path(f'/proc/{tool.pid}/task/{tool.pid}/children')
        deadline = time.monotonic() + 60
        while len(children.read_text().split()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        send(tool.pid, number)
        _, err = tool.communicate(timeout=60)  # until the last process has closed its end
        assert tool.returncode == code, err
        assert err.strip() == ('Interrupted' if number == signal.SIGINT else '')
        with pytest.raises(ProcessLookupError):  # the group is empty
            while time.monotonic() < deadline:
                os.killpg(tool.pid, 0)
                time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(tool.pid, signal.SIGKILL)
