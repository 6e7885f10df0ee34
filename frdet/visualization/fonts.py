"""Fonts for class names in any script: Pillow's font, the font that ``FRDET_FONT`` names, and fonts of the system.

matplotlib reads fonts and finds fonts of the system. It is imported only if a text has more than ASCII characters,
which Pillow's font has, or if a font is named.
"""

import functools
import io
import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mmengine.logging import print_log
from PIL import ImageDraw, ImageFont

from frdet.errors import ConfigError

#: Environment variable with the path of the font to use first.
FONT = 'FRDET_FONT'
PLOTS = 'DejaVu Sans'  # the font family of plots, which is part of matplotlib
USUAL = ''  # stands for Pillow's own font, which has Latin letters
_ASCII = frozenset(map(chr, range(33, 127)))
# Special styles are used only if no plain font has the characters. A font of placeholders is never used.
_SPECIAL = ('bold', 'black', 'heavy', 'italic', 'oblique', 'thin', 'light', 'medium', 'mono', 'serif', 'condensed')
_PLACEHOLDER = 'lastresort'


def legible(names: Sequence[str]) -> tuple[str, ...]:
    """Class names that can be drawn: if no font has the characters of label 3's name, it becomes ``class 3``."""
    return _legible(tuple(names), os.environ.get(FONT, ''))


@functools.lru_cache(maxsize=8)
def _legible(names: tuple[str, ...], font: str) -> tuple[str, ...]:
    _, lacking = _cover(_characters(names), font)
    if not lacking:
        return names
    drawn = tuple(f'class {k}' if lacking.intersection(name) else name for k, name in enumerate(names))
    undrawn = [k for k, name in enumerate(names) if name != drawn[k]]
    print_log(
        f'No font here has all characters of {len(undrawn)} class names, such as {names[undrawn[0]]!r}; pictures show '
        f'"{drawn[undrawn[0]]}": set the environment variable {FONT} to the path of a font that has them, or '
        'install one',
        logger='current',
        level=logging.WARNING,
    )
    return drawn


def font_families(texts: Iterable[str]) -> list[str]:
    """Font families for matplotlib's ``font.family`` that together have the characters of ``texts``."""
    paths, _ = _cover(_characters(texts), os.environ.get(FONT, ''))
    return list(dict.fromkeys(PLOTS if path in (USUAL, _dejavu()) else _family(path) for path in paths))


@functools.lru_cache(maxsize=64)
def _family(path: str) -> str:
    from matplotlib import font_manager

    font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(fname=path).get_name()


class Lettering:
    """Text of one size. Each piece is written in the first font that has its characters.

    Args:
        texts: all texts that may be written.
        size: size of the letters in pixels.

    Raises:
        ConfigError: the font of ``FRDET_FONT`` cannot be read.
    """

    def __init__(self, texts: Iterable[str], size: int):
        paths, _ = _cover(_characters(texts), os.environ.get(FONT, ''))
        self._fonts = [(path, _loaded(path, size)) for path in paths]
        self.size = size

    def width(self, text: str) -> float:
        """Length of a text in pixels."""
        return sum(font.getlength(part) for part, font in self._pieces(text))

    def metrics(self, text: str) -> tuple[int, int]:
        """Pixels above and below the base line that a text needs."""
        metrics = [font.getmetrics() for _, font in self._pieces(text)]
        return max(above for above, _ in metrics), max(below for _, below in metrics)

    def write(self, draw: ImageDraw.ImageDraw, centre: tuple[float, float], text: str, fill: tuple[int, ...]) -> None:
        """Draw a text around ``centre`` (x, y)."""
        pieces = list(self._pieces(text))
        if len(pieces) == 1:
            draw.text(centre, pieces[0][0], fill=fill, font=pieces[0][1], anchor='mm')
            return
        above, below = self.metrics(text)
        x, y = centre[0] - self.width(text) / 2, centre[1] + (above - below) / 2
        for part, font in pieces:
            draw.text((x, y), part, fill=fill, font=font, anchor='ls')
            x += font.getlength(part)

    def _pieces(self, text: str) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
        """Parts of a text and their fonts. Characters that no font has get the first font."""
        spaced = (' ' if unicodedata.category(c) in ('Cc', 'Zl', 'Zp') else c for c in text)
        text = unicodedata.normalize('NFC', ''.join(spaced))
        needed = _characters([text])
        for path, font in self._fonts:
            if len(self._fonts) == 1 or needed <= _charset(path):
                yield text, font
                return
        start, current = 0, self._font_of(text[0])
        for place, character in enumerate(text):
            chosen = self._font_of(character) if _characters([character]) else current
            if chosen is not current:
                yield text[start:place], current
                start, current = place, chosen
        yield text[start:], current

    def _font_of(self, character: str) -> ImageFont.FreeTypeFont:
        return next((font for path, font in self._fonts if character in _charset(path)), self._fonts[0][1])


def _characters(texts: Iterable[str]) -> frozenset[str]:
    """Characters that need a glyph, without spaces and marks of writing direction, joining and variants."""
    every = set(unicodedata.normalize('NFC', ''.join(texts)))
    return frozenset(c for c in every if unicodedata.category(c)[0] not in 'CZ' and not 0xFE00 <= ord(c) <= 0xFE0F)


@functools.lru_cache(maxsize=64)
def _cover(characters: frozenset[str], font: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Paths of fonts that together have ``characters``, in the order of use, and the characters that no font has."""
    if not font and characters <= _ASCII:
        return (USUAL,), frozenset()
    paths = [font, USUAL, _dejavu()] if font else [USUAL, _dejavu()]
    lacking = characters.difference(*map(_charset, paths))
    having = _of_system(lacking) if lacking else {}
    while lacking and having:
        path = max(having, key=lambda path: len(having[path] & lacking))  # the first of equals
        there = having.pop(path) & lacking
        if there and _draws(path, min(there)):
            paths.append(path)
            lacking -= there
    return tuple(paths), lacking


def _of_system(characters: frozenset[str]) -> dict[str, frozenset[str]]:
    """Paths of fonts of the system, plain ones first, and which of ``characters`` each has."""
    from matplotlib import font_manager

    having = {}
    for path in sorted(font_manager.findSystemFonts(), key=_rank):
        with suppress(Exception):  # a damaged font, or a format that FreeType cannot read
            if _PLACEHOLDER not in Path(path).name.lower() and (there := characters & _read_charset(path)):
                having[path] = there
    return having


def _rank(path: str) -> tuple[int, str]:
    name = Path(path).stem.lower()
    return sum(word in name.replace('sansserif', '') for word in _SPECIAL), path


def _draws(path: str, character: str) -> bool:
    """Whether Pillow can draw with a font. With fonts of coloured pictures it fails, or draws nothing."""
    with suppress(OSError, ValueError):
        return _loaded(path, 24).getmask(character).getbbox() is not None
    return False


def _dejavu() -> str:
    """matplotlib's own font: Latin, Greek, Cyrillic, Arabic, Hebrew and many signs."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf'))


@functools.lru_cache(maxsize=64)
def _charset(path: str) -> frozenset[str]:
    """The characters of a font; ConfigError if it cannot be read."""
    try:
        return _read_charset(path)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f'The environment variable {FONT} is {path!r}, which is no font: {error}') from None


def _read_charset(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    source = io.BytesIO(_loaded(USUAL, 16).font_bytes) if path == USUAL else path
    return frozenset(map(chr, FT2Font(source).get_charmap()))


@functools.lru_cache(maxsize=64)
def _loaded(path: str, size: int) -> ImageFont.FreeTypeFont:
    if path != USUAL:
        return ImageFont.truetype(path, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
