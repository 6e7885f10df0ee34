"""A JSON object that is read in pieces is the one that json.loads reads, wherever the pieces end."""

import gzip
import json

import pytest

from frdet.datasets import json_stream
from frdet.datasets.json_stream import stream_json

TEXT = """ {"a": [], "b" :[ 12, -3.5e2 ,NaN, true,null,"x,]}", "\\u00fc\\"ü", [], [1, [2]], {} , {"c": [{"d": 1}]} ],
"e": {"f": [1, 2], "g": {}}, "h": 123, "i": "", "j": [{"k": 1},{"k": 2}\t,\r\n{"k": [3]}], "a": [7]}\n"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    def read(content, block=1 << 20):
        (tmp_path / 'a.json').write_bytes(content)
        monkeypatch.setattr(json_stream, 'BLOCK', block)
        return stream_json(tmp_path / 'a.json', lambda item: {**item, 'seen': True})

    return read


@pytest.mark.parametrize('block', [1, 2, 3, 5, 8, 13, 21, 34, 1000])
def test_pieces_of_any_length(read, block):
    whole = json.loads(TEXT, object_hook=lambda item: {**item, 'seen': True})
    whole.pop('seen')  # the hook does not get the outermost object
    assert repr(read(TEXT.encode(), block)) == repr(whole)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-be', 'utf-32'])
@pytest.mark.parametrize('pack', [bytes, gzip.compress])
def test_every_encoding(read, encoding, pack):
    assert read(pack('{"ü": [{"b": "ß"}]}'.encode(encoding)), 3) == {'ü': [{'b': 'ß', 'seen': True}]}


@pytest.mark.parametrize(
    'text',
    [
        '', '[]', '12', '{', '{"a"}', '{"a": }', '{"a": 1,}', '{"a": [1,]}', '{"a": [,1]}', '{"a": [1 2]}', '{"a": [1}',
        '{"a": [{"b": 1}{"b": 2}]}', '{"a": [{"b": 1},]}', '{"a": 1} {}', '{1: 2}', '{"a": 1 "b": 2}', '{"a": [{"b": 1',
        '{"a": 01}', '{"a": [1.]}', '{"a": "\x01"}', '{"a": nul}', '{[1]: 2}',
    ],
)  # fmt: skip
@pytest.mark.parametrize('block', [1, 4, 1000])
def test_what_is_no_json_object_is_refused(read, text, block):
    with pytest.raises(ValueError):
        read(text.encode(), block)


def test_a_long_value_is_not_tried_for_every_piece(read, monkeypatch):
    """100 pieces of 10 characters: the pieces double, so 8 attempts are enough."""
    tried = []
    decoder = json_stream.json.JSONDecoder
    monkeypatch.setattr(decoder, 'raw_decode', _counted(decoder.raw_decode, tried))
    assert read(json.dumps({'a': {'b': 'x' * 1000}}).encode(), 10) == {'a': {'b': 'x' * 1000, 'seen': True}}
    assert len(tried) <= 10  # one or two of them for the key


def _counted(method, calls):
    def call(*args):
        calls.append(args)
        return method(*args)

    return call
