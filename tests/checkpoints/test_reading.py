"""Files of weights are read, and what is in them is never run."""

import functools
import hashlib
import http.server
import os
import pickle
import threading
from argparse import Namespace
from collections import OrderedDict
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from frdet.checkpoints import load_file, resolve, unwrap
from frdet.checkpoints.reading import torchvision_url
from frdet.errors import CheckpointError
from frdet.files import cache_dir

#: {'a': numpy.arange(3, dtype='<f4')} as Python 2 with numpy 1 wrote it: byte strings, the old module's name.
PYTHON2 = (
    b'\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04'
    b'(K\x01K\x03\x85cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00'
    b'tb\x89U\x0c\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00@tbs.'
)


class Trap:
    """Creates a folder where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickle_of_python_2(tmp_path):
    path = tmp_path / 'old.pkl'
    path.write_bytes(PYTHON2)
    content = load_file(path)
    assert list(content) == ['a']
    np.testing.assert_array_equal(content['a'], np.array([0, 1, 2], np.float32))


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
def test_pickle_of_python_3(tmp_path, protocol):
    content = {'model': OrderedDict(w=np.arange(6.0).reshape(2, 3), n=np.float32(2.5)), 'names': ['a', ('b', None)]}
    path = tmp_path / 'new.pkl'
    path.write_bytes(pickle.dumps(content, protocol))
    loaded = load_file(str(path))
    np.testing.assert_array_equal(loaded['model']['w'], content['model']['w'])
    assert loaded['model']['n'] == 2.5
    assert loaded['names'] == ['a', ('b', None)]


@pytest.mark.parametrize('name', ['trap.pkl', 'trap.pth'])
def test_code_is_refused_and_not_run(tmp_path, name):
    sprung = tmp_path / 'sprung'
    content = {'state_dict': {'w': torch.zeros(1)}, 'x': Trap(sprung)}
    if name.endswith('.pkl'):
        (tmp_path / name).write_bytes(pickle.dumps({'x': Trap(sprung)}))
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(CheckpointError, match='refused.*mkdir') as info:
        load_file(tmp_path / name)
    assert not sprung.exists()
    assert len(str(info.value).splitlines()) <= 2


def test_an_array_that_hides_an_object(tmp_path):
    sprung = tmp_path / 'sprung'
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(np.array([Trap(sprung)], dtype=object)))
    with pytest.raises(CheckpointError, match='refused'):
        load_file(tmp_path / 'a.pkl')
    assert not sprung.exists()


def test_torch_file_with_histories(tmp_path):
    """MMDetection's checkpoints hold MMEngine's histories and numpy scalars."""
    content = {'state_dict': {'w': torch.ones(2)}, 'h': HistoryBuffer([1.0, 2.0], [1, 1]), 's': np.float64(0.5)}
    torch.save(content, tmp_path / 'a.pth')
    loaded = load_file(tmp_path / 'a.pth')
    assert loaded['h'].mean() == 1.5
    assert loaded['s'] == 0.5
    # The list of what is admitted is not left behind.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'a.pth', weights_only=True)


def test_arguments_of_torchvisions_training_script(tmp_path):
    """It saves them beside the model; they may hold no more than any file."""
    content = {'model': {'w': torch.ones(2)}, 'args': Namespace(lr=0.02, device='cpu'), 'epoch': 3}
    torch.save(content, tmp_path / 'a.pth')
    assert load_file(tmp_path / 'a.pth') == content | {'model': ANY}
    content['args'].model = Trap(tmp_path / 'sprung')
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='refused.*mkdir'):
        load_file(tmp_path / 'a.pth')
    assert not (tmp_path / 'sprung').exists()


def test_legacy_torch_file(tmp_path):
    torch.save({'w': torch.ones(2)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    assert load_file(tmp_path / 'a.pth')['w'].tolist() == [1, 1]


@pytest.mark.parametrize('name', ['cut.pth', 'cut.pkl', 'legacy.pth'])
@pytest.mark.parametrize('kept', [0.0, 0.01, 0.5, 0.98])
def test_truncated_file(tmp_path, name, kept):
    path = tmp_path / name
    if name.endswith('pkl'):
        path.write_bytes(pickle.dumps({'w': np.zeros(5000)}, 2))
    else:
        torch.save({'w': torch.zeros(5000)}, path, _use_new_zipfile_serialization=name != 'legacy.pth')
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError, match=name):
        load_file(path)


@pytest.mark.parametrize('name', ['text.pth', 'text.pkl'])
def test_a_file_of_another_kind(tmp_path, name):
    (tmp_path / name).write_text('<html>Not found</html>')
    with pytest.raises(CheckpointError, match='unreadable') as info:
        load_file(tmp_path / name)
    assert len(str(info.value).splitlines()) <= 2


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match='no such file'):
        load_file(tmp_path / 'none.pth')
    with pytest.raises(CheckpointError, match='a folder'):
        load_file(tmp_path)


@pytest.mark.parametrize('key', ['state_dict', 'model', 'blobs', None])
def test_unwrap(key):
    state = {'module.w': torch.ones(1)}
    assert list(unwrap({key: state, 'meta': {}} if key else state, 'f')) == ['w']


@pytest.mark.parametrize('content', [[1], {'a': 1}, {}, torch.ones(1)])
def test_unwrap_finds_no_weights(content):
    with pytest.raises(CheckpointError, match='f.pth holds a'):
        unwrap(content, 'f.pth')


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
    assert message.count(f'{site.url}/{name}') == 1
    assert f'put that file at {cache_dir() / name}' in message
    assert 'load_from=None' in message and len(message.splitlines()) == 2
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
    detector = 'https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth'
    assert torchvision_url('fasterrcnn_resnet50_fpn_v2') == detector
    with pytest.raises(CheckpointError, match='no model'):
        torchvision_url('resnet51')
    with pytest.raises(CheckpointError, match='imagenet1k_v1'):
        torchvision_url('resnet50.v9')


def test_detectron2s_addresses(site, monkeypatch):
    """The file of the model zoo is asked for, and kept under its own name."""
    monkeypatch.setattr('frdet.checkpoints.reading.DETECTRON2', f'{site.url}/')
    folder = site.folder / 'COCO-Detection/faster_rcnn_R_50_FPN_3x/137849458'
    folder.mkdir(parents=True)
    (folder / 'model_final_280758.pkl').write_bytes(CONTENT)
    path = resolve('detectron2://COCO-Detection/faster_rcnn_R_50_FPN_3x/137849458/model_final_280758.pkl')
    assert path == cache_dir() / 'model_final_280758.pkl' and path.read_bytes() == CONTENT


def test_an_unknown_address():
    with pytest.raises(CheckpointError, match='s3://'):
        resolve('s3://bucket/net.pth')
