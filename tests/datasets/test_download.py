"""Against a server on this machine that knows ranges, and can be told to misbehave."""

import io
import zipfile
from collections import namedtuple

import numpy as np
import pytest

from frdet.datasets import download as module
from frdet.datasets.download import Archive, download_coco
from frdet.errors import DataError

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


def test_no_server(server, tmp_path):
    with pytest.raises(DataError, match='(?s)cannot be downloaded .*Check the connection'):
        download_coco(tmp_path, base_url='http://127.0.0.1:1', archives=ARCHIVES)
    with pytest.raises(DataError, match='unknown url type'):
        download_coco(tmp_path, base_url='here', archives=ARCHIVES)


def test_a_damaged_archive_is_deleted(server, tmp_path):
    serve_coco(server)
    place = IMAGES.index(DATA[:100]) + 50
    server.files['/z/val2017.zip'] = IMAGES[:place] + b'damaged!' + IMAGES[place + 8 :]
    with pytest.raises(DataError, match='is damaged .*to download it'):
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
