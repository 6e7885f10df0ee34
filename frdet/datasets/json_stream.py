"""Reading a large JSON object in pieces: neither its bytes nor its text are in memory as a whole."""

import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

BLOCK = 1 << 20  # characters that are read at once
SPACE, COMMA = re.compile(r'[ \t\n\r]*'), re.compile(r'[ \t\n\r]*,[ \t\n\r]*')
CLOSING, AFTER = '}]"', (*' \t\n\r,]}',)  # a value is whole with such an end, or before such a character: 12 may go on


def stream_json(path: str | Path, hook: Callable[[dict], Any]) -> dict[str, Any]:
    """The object in a JSON file, which may be compressed by gzip. ``hook`` gets each object in it, some of them twice.

    Raises:
        Exception: the file has no object, or is wrong. ``json.loads`` says what is wrong.
    """
    with open(path, 'rb') as binary:
        source: Any = gzip.GzipFile(fileobj=binary) if binary.peek(2).startswith(b'\x1f\x8b') else binary
        encoding = json.detect_encoding(source.peek(4)[:4])
        return _Stream(io.TextIOWrapper(source, encoding=encoding, newline=''), hook).read()


class _Stream:
    """``text`` is a piece of the file, which was read up to the position ``at`` of it."""

    def __init__(self, file: TextIO, hook: Callable[[dict], Any]):
        self.file, self.text, self.at = file, '', 0
        self.decode = json.JSONDecoder(object_hook=hook).raw_decode

    def read(self) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for _ in self._items('{', '}'):
            if not isinstance(key := self._value(), str):
                raise ValueError(f'{key!r} is no key')
            self._take(':')
            content[key] = self._list() if self._next() == '[' else self._value()
        if self._next():
            raise ValueError('more follows')
        return content

    def _list(self) -> list:
        values = []
        for _ in self._items('[', ']'):
            values.append(self._value())
            text, at = self.text, self.at  # those that follow are in the same piece, except for one in thousands
            with suppress(ValueError):
                while comma := COMMA.match(text, at):
                    value, at = self.decode(text, comma.end())
                    if text[at - 1] not in CLOSING:
                        break
                    values.append(value)
                    self.at = at
        return values

    def _items(self, first: str, last: str) -> Iterator[None]:
        """One step for each item between two brackets. The caller reads the item."""
        self._take(first)
        if self._next() == last:
            self._take(last)
            return
        yield
        while self._take(',', last) == ',':
            yield

    def _take(self, *expected: str) -> str:
        if (found := self._next()) not in expected:
            raise ValueError(f'{found!r} instead of {expected}')
        self.at += 1
        return found

    def _next(self) -> str:
        """The next character that is no space; '' at the end."""
        while True:
            self.at = SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text) or not self._read_on():
                return self.text[self.at : self.at + 1]

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except ValueError:  # the piece ends in the value, or the value is wrong
                if self._read_on():
                    continue
                raise
            is_whole = self.text[end - 1] in CLOSING or self.text[end : end + 1] in AFTER
            if not is_whole and self._read_on():
                continue
            self.at = end
            return value

    def _read_on(self) -> bool:
        """Put the next piece behind the text that is left; double it, so that a long value is not tried too often."""
        block = self.file.read(max(BLOCK, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + block, 0
        return bool(block)
