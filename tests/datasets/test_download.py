"""Against a server on this machine that knows ranges, and can be told to misbehave."""

import io
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from frdet.datasets import download as module
from frdet.datasets.download import Archive, download_coco, fetch
from frdet.errors import DataError


class Server:
    """Serves ``files``; ``cut`` bytes into an answer it hangs up, as often as ``cuts`` says."""

    def __init__(self):
        self.files, self.requests = {}, []
        self.cut, self.cuts, self.ranges = 0, 0, True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.http.server_port}'
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, handler):
        start = handler.headers.get('Range')
        self.requests.append((handler.path, start))
        data = self.files.get(handler.path)
        if data is None:
            handler.send_error(404)
            return
        begin = int(start.removeprefix('bytes=').removesuffix('-')) if start and self.ranges else 0
        handler.send_response(206 if begin else 200)
        handler.send_header('Content-Length', str(len(data) - begin))
        handler.end_headers()
        body = data[begin:]
        if self.cuts > 0:
            self.cuts -= 1
            body = body[: self.cut]
        handler.wfile.write(body)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(module.time, 'sleep', lambda seconds: None)


DATA = np.random.default_rng(0).bytes(50_000)


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as file:
        for name, data in files.items():
            file.writestr(name, data)
    return buffer.getvalue()


IMAGES = zipped({'val2017/': b'', 'val2017/1.jpg': DATA, 'val2017/2.jpg': b'two', 'readme.txt': b'no'})
ANNOTATIONS = zipped({'annotations/instances_val2017.json': b'{}', 'annotations/captions_val2017.json': b'[]'})
ARCHIVES = [
    Archive('a/annotations.zip', len(ANNOTATIONS), 'annotations', 'annotations/instances_', 1),
    Archive('z/val2017.zip', len(IMAGES), 'val2017', 'val2017/', 2),
]


def serve_coco(server):
    server.files = {'/a/annotations.zip': ANNOTATIONS, '/z/val2017.zip': IMAGES}


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def test_fetches_and_unpacks(server, tmp_path):
    serve_coco(server)
    assert download_coco(tmp_path / 'coco', base_url=server.url + '/', archives=ARCHIVES) == tmp_path / 'coco'
    assert tree(tmp_path / 'coco') == {
        'annotations/instances_val2017.json': b'{}',
        'val2017/1.jpg': DATA,
        'val2017/2.jpg': b'two',
    }


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    serve_coco(server)
    download_coco(tmp_path, base_url=server.url, archives=ARCHIVES[:1])
    download_coco(tmp_path, base_url=server.url, archives=ARCHIVES, keep=True)
    assert [path for path, _ in server.requests] == ['/a/annotations.zip', '/z/val2017.zip']
    assert (tmp_path / 'val2017.zip').read_bytes() == IMAGES


def test_a_part_is_continued(server, tmp_path):
    server.files['/f'] = DATA
    (tmp_path / 'f.part').write_bytes(DATA[:20_000])
    fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert server.requests == [('/f', 'bytes=20000-')]
    assert tree(tmp_path) == {'f': DATA}


def test_a_lost_connection_is_taken_up(server, tmp_path):
    """More often than ATTEMPTS, which counts connections that bring nothing."""
    server.files['/f'] = DATA
    server.cut, server.cuts = 6_000, 7
    fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert tree(tmp_path) == {'f': DATA}
    assert [start for _, start in server.requests] == [None, *(f'bytes={6000 * n}-' for n in range(1, 8))]


def test_a_connection_that_brings_nothing_ends_it(server, tmp_path):
    server.files['/f'] = DATA
    (tmp_path / 'f.part').write_bytes(DATA[:10_000])
    server.cut, server.cuts = 0, 100
    with pytest.raises(DataError, match='10000 of 50000 bytes are in .*f.part'):
        fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert len(server.requests) == module.ATTEMPTS
    server.cuts = 0
    fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert tree(tmp_path) == {'f': DATA}


def test_a_server_without_ranges(server, tmp_path):
    server.files['/f'] = DATA
    server.ranges = False
    (tmp_path / 'f.part').write_bytes(b'something old')
    fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert tree(tmp_path) == {'f': DATA}


def test_a_part_that_is_too_long(server, tmp_path):
    server.files['/f'] = DATA
    (tmp_path / 'f.part').write_bytes(DATA + b'more')
    fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert tree(tmp_path) == {'f': DATA}


def test_another_size_is_refused(server, tmp_path):
    server.files['/f'] = DATA[:-1]
    with pytest.raises(DataError, match='is 49999 bytes, expected 50000'):
        fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert tree(tmp_path) == {}


def test_a_missing_file_is_not_asked_for_twice(server, tmp_path):
    with pytest.raises(DataError, match='cannot be downloaded .*Not Found'):
        fetch(server.url + '/none', tmp_path / 'f', 10)
    assert len(server.requests) == 1


def test_no_server(tmp_path):
    with pytest.raises(DataError, match='(?s)cannot be downloaded .*Check the connection'):
        download_coco(tmp_path, base_url='http://127.0.0.1:1', archives=ARCHIVES)
    with pytest.raises(DataError, match='unknown url type'):
        download_coco(tmp_path, base_url='here', archives=ARCHIVES)


def test_a_damaged_archive_is_deleted(server, tmp_path):
    serve_coco(server)
    place = IMAGES.index(DATA[:100]) + 50
    server.files['/z/val2017.zip'] = IMAGES[:place] + b'damaged!' + IMAGES[place + 8 :]
    with pytest.raises(DataError, match='is damaged .*fetch it anew'):
        download_coco(tmp_path, base_url=server.url, archives=ARCHIVES[1:])
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_something_else(server, tmp_path):
    serve_coco(server)
    with pytest.raises(DataError, match='2 files in val2017/, expected 5000'):
        download_coco(tmp_path, base_url=server.url, archives=[ARCHIVES[1]._replace(files=5000)])


def test_an_incomplete_folder_is_not_taken_for_complete(server, tmp_path):
    serve_coco(server)
    (tmp_path / 'val2017').mkdir()
    (tmp_path / 'val2017' / '1.jpg').touch()
    with pytest.raises(DataError, match='holds 1 of 2 files'):
        download_coco(tmp_path, base_url=server.url, archives=ARCHIVES)
    assert server.requests == []


def test_a_full_disk_is_noticed_before(server, tmp_path, monkeypatch):
    usage = namedtuple('usage', 'free')
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda path: usage(10_000_000_000))
    with pytest.raises(DataError, match=r'has 10\.0 GB free, COCO needs 39\.\d GB'):
        download_coco(tmp_path, base_url=server.url)
    assert server.requests == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(DataError, match='cannot be written'):
        download_coco(tmp_path / 'file' / 'coco', archives=ARCHIVES)


def test_the_table_is_cocos():
    """118,287 and 5,000 images, as COCO 2017 states."""
    assert {name: archive.files for name, archive in module.SPLITS.items()} == {'train': 118287, 'val': 5000}
