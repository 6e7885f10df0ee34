"""Against a server on this machine that knows ranges, and can be told to misbehave."""

import errno
import os

import numpy as np
import pytest

from frdet import files
from frdet.files import DownloadError, fetch, write_file

DATA = np.random.default_rng(0).bytes(50_000)


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob('*') if p.is_file()}


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
    with pytest.raises(DownloadError, match='10000 of 50000 bytes are in .*f.part'):
        fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert len(server.requests) == files.ATTEMPTS
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
    with pytest.raises(DownloadError, match='is 49999 bytes, expected 50000'):
        fetch(server.url + '/f', tmp_path / 'f', len(DATA))
    assert tree(tmp_path) == {}


def test_a_missing_file_is_not_asked_for_twice(server, tmp_path):
    with pytest.raises(DownloadError, match='cannot be downloaded .*Not Found'):
        fetch(server.url + '/none', tmp_path / 'f', 10)
    assert len(server.requests) == 1


def test_a_size_that_is_not_known_before(server, tmp_path):
    """The server says it; a connection that closes early is taken up again."""
    server.files['/f'] = DATA
    server.cut, server.cuts = 20_000, 1
    fetch(server.url + '/f', tmp_path / 'f')
    assert server.requests == [('/f', None), ('/f', 'bytes=20000-')]
    assert tree(tmp_path) == {'f': DATA}


def test_a_write_that_fails_keeps_the_earlier_file(tmp_path, monkeypatch):
    write_file(tmp_path / 'a', b'one')
    write_file(tmp_path / 'a', b'two')
    assert tree(tmp_path) == {'a': b'two'}

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space'):
        write_file(tmp_path / 'a', b'three')
    assert tree(tmp_path) == {'a': b'two'}
