"""Addresses of weights become files, whole or not at all."""

import functools
import hashlib
import http.server
import threading

import pytest

from frdet.checkpoints import resolve
from frdet.checkpoints.addresses import cache_dir, torchvision_url
from frdet.errors import CheckpointError

CONTENT = b'weights' * 1000


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == '/cut.pth':
            self.send_response(200)
            self.send_header('Content-Length', '99999')
            self.end_headers()
            self.wfile.write(CONTENT)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.setenv('FRDET_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr('frdet.files.time.sleep', lambda seconds: None)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(_Handler, directory=folder))
    server.asked = []
    server.folder = folder
    server.url = f'http://127.0.0.1:{server.server_port}'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith('.'))


def test_a_path_stays_a_path(tmp_path):
    assert resolve(tmp_path / 'a.pth') == tmp_path / 'a.pth'
    assert resolve('relative/b.pkl').name == 'b.pkl'


def test_a_download_is_kept(site):
    (site.folder / 'net.pth').write_bytes(CONTENT)
    path = resolve(f'{site.url}/net.pth?version=2')
    assert path == cache_dir() / 'net.pth'
    assert path.read_bytes() == CONTENT
    resolve(f'{site.url}/net.pth')
    assert len(site.asked) == 1
    assert visible(cache_dir()) == ['net.pth']


def test_a_file_in_the_cache_is_used_unseen(site):
    cache_dir().mkdir()
    (cache_dir() / 'R-50.pkl').write_bytes(b'mine')
    assert resolve('detectron2://ImageNetPretrained/MSRA/R-50.pkl').read_bytes() == b'mine'
    assert not site.asked


@pytest.mark.parametrize('name', ['cut.pth', 'none.pth'])
def test_a_failed_download_leaves_nothing(site, name):
    with pytest.raises(CheckpointError) as info:
        resolve(f'{site.url}/{name}')
    message = str(info.value)
    assert f'{site.url}/{name}' in message
    assert str(cache_dir() / name) in message
    assert 'configs/faster_rcnn/r50_fpn_1x_cocoval_scratch.py' in message
    assert visible(cache_dir()) == []
    assert {p.name for p in cache_dir().iterdir()} <= {f'.{name}.lock'}


def test_no_connection(site):
    site.shutdown()
    site.server_close()
    with pytest.raises(CheckpointError, match='Cannot download'):
        resolve(f'{site.url}/net.pth')


def test_the_hash_in_a_name_is_checked(site):
    good = f'net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth'
    for name in (good, 'net-00000000.pth'):
        (site.folder / name).write_bytes(CONTENT)
    assert resolve(f'{site.url}/{good}').read_bytes() == CONTENT
    with pytest.raises(CheckpointError, match='SHA-256'):
        resolve(f'{site.url}/net-00000000.pth')
    assert visible(cache_dir()) == [good]


def test_torchvision_addresses():
    # The names stand in torchvision's documentation of its weights.
    assert torchvision_url('resnet50') == 'https://download.pytorch.org/models/resnet50-0676ba61.pth'
    assert torchvision_url('resnet50.imagenet1k_v2').endswith('resnet50-11ad3fa6.pth')
    with pytest.raises(CheckpointError, match='no model'):
        torchvision_url('resnet51')
    with pytest.raises(CheckpointError, match='imagenet1k_v1'):
        torchvision_url('resnet50.v9')


def test_an_unknown_address():
    with pytest.raises(CheckpointError, match='s3://'):
        resolve('s3://bucket/net.pth')
