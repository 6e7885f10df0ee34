"""A font with one Chinese character, a square, stands for those that a system may have."""

import logging

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager, get_data_path
from mmengine.logging import MMLogger
from PIL import Image, ImageDraw, ImageFont

from frdet.errors import ConfigError
from frdet.insight.plots import Plot, draw, save
from frdet.visualization import draw_boxes, fonts
from frdet.visualization.fonts import Lettering, legible

GREY = np.full((200, 300, 3), 128, dtype=np.uint8)
DEJAVU = f'{get_data_path()}/fonts/ttf/DejaVuSans.ttf'


def square_font(path, characters, style='Regular', side=1000):
    """A TrueType font whose characters are squares on the base line, ``side`` of 1000 units wide and high."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, side), (side, side), (side, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(['.notdef', 'square'])
    builder.setupCharacterMap({ord(c): 'square' for c in characters})
    builder.setupGlyf({'.notdef': TTGlyphPen(None).glyph(), 'square': pen.glyph()})
    builder.setupHorizontalMetrics({'.notdef': (1000, 0), 'square': (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=-200)
    builder.setupNameTable({'familyName': path.stem, 'styleName': style})
    builder.setupOS2(sTypoAscender=1000, usWinAscent=1000, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def system(monkeypatch):
    """The fonts of the system: none at first."""
    paths = []
    monkeypatch.setattr(font_manager, 'findSystemFonts', lambda *args, **kwargs: list(paths))
    monkeypatch.delenv('FRDET_FONT', raising=False)
    known = list(font_manager.fontManager.ttflist)
    caches = (fonts._cover, fonts._legible, fonts._charset, fonts._family)
    for cached in caches:
        cached.cache_clear()
    yield paths
    font_manager.fontManager.ttflist[:] = known
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def written(monkeypatch):
    texts = []
    original = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, 'text', lambda self, at, text, **kw: (texts.append(text), original(self, at, text, **kw))
    )
    return texts


@pytest.fixture
def logged():
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_instance('fonts')
    logger.addHandler(handler)
    return records


def picture(text, size=20, texts=()):
    image = Image.new('RGB', (300, 40))
    Lettering([*texts, text], size).write(ImageDraw.Draw(image), (150, 20), text, (255, 255, 255))
    return np.asarray(image)


def pillows(text, font):
    image = Image.new('RGB', (300, 40))
    ImageDraw.Draw(image).text((150, 20), text, fill=(255, 255, 255), font=font, anchor='mm')
    return np.asarray(image)


def test_latin_is_written_as_pillow_writes_it(system):
    for text in ('person 0.95', 'traffic light', '<a> "b" & c/d'):
        np.testing.assert_array_equal(picture(text), pillows(text, ImageFont.load_default(20)))
        np.testing.assert_array_equal(
            picture(text, texts=['行人', 'машина']), pillows(text, ImageFont.load_default(20))
        )


@pytest.mark.parametrize(
    'text', ['машина', 'автомобіль', 'αυτοκίνητο', 'naïve café', 'Łódź', 'سيارة', 'מכונית', 'ავტო']
)
def test_scripts_of_the_font_that_matplotlib_brings(system, text):
    assert legible(['cat', text]) == ('cat', text)
    np.testing.assert_array_equal(picture(text), pillows(text, ImageFont.truetype(DEJAVU, 20)))


def test_a_font_of_the_system_is_found(system, tmp_path, written):
    (tmp_path / 'damaged.ttf').write_text('no font')
    system += [str(tmp_path / 'damaged.ttf'), str(tmp_path / 'missing.ttf')]
    system += [square_font(tmp_path / f'{name}.ttf', '行人') for name in ('ABold', 'AAItalic', 'LastResort')]
    system += [square_font(tmp_path / 'Plain.ttf', '行人', side=500), square_font(tmp_path / 'Half.ttf', '行')]
    assert legible(['cat', '行人']) == ('cat', '行人')
    found = picture('行人')
    np.testing.assert_array_equal(found, pillows('行人', ImageFont.truetype(str(tmp_path / 'Plain.ttf'), 20)))
    rows, columns = np.nonzero(found[:, :, 0] > 128)
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (10, 30)  # squares of 10 at steps of 20
    draw_boxes(GREY, [[10, 40, 90, 90]], [1], [0.5], ('cat', '行人'))
    assert ''.join(written[-2:]) == '行人 0.50'


def test_several_fonts_for_one_name(system, tmp_path):
    system += [square_font(tmp_path / 'A.ttf', '行'), square_font(tmp_path / 'B.ttf', '人')]
    text = 'a行б人'
    letters = Lettering([text], 20)
    parts = [ImageFont.load_default(20), ImageFont.truetype(DEJAVU, 20)]
    assert letters.width(text) == pytest.approx(parts[0].getlength('a') + 20 + parts[1].getlength('б') + 20)
    found = picture(text)
    columns = np.nonzero((found[:, :, 0] > 250).sum(axis=0) >= 20)[0]  # those of the squares, which are 20 high
    assert len(columns) == pytest.approx(40, abs=2)
    assert legible([text]) == (text,)


@pytest.mark.parametrize('characters', ['行人', '行人0123456789. abct'])
def test_a_font_can_be_named(system, tmp_path, monkeypatch, characters):
    assert legible(['行人']) == ('class 0',)
    monkeypatch.setenv('FRDET_FONT', square_font(tmp_path / 'own.ttf', characters))
    assert legible(['行人']) == ('行人',)
    np.testing.assert_array_equal(picture('行人'), pillows('行人', ImageFont.truetype(str(tmp_path / 'own.ttf'), 20)))
    own = 'a' in characters
    latin = ImageFont.truetype(str(tmp_path / 'own.ttf'), 20) if own else ImageFont.load_default(20)
    np.testing.assert_array_equal(picture('cat'), pillows('cat', latin))


@pytest.mark.parametrize('content', [None, b'no font'])
def test_a_named_font_that_is_none(system, tmp_path, monkeypatch, content):
    if content:
        (tmp_path / 'a.ttf').write_bytes(content)
    monkeypatch.setenv('FRDET_FONT', str(tmp_path / 'a.ttf'))
    with pytest.raises(ConfigError, match=r"FRDET_FONT is '.*a\.ttf', which is no font"):
        draw_boxes(GREY, [[10, 40, 90, 90]], [0], classes=['cat'])


def test_without_a_font_the_number_stands_and_one_message_says_why(system, written, logged):
    names = ('cat', '行人', 'кот', '车')
    for _ in range(3):
        draw_boxes(GREY, [[10, 40, 90, 90], [100, 40, 200, 90], [10, 120, 90, 190]], [3, 1, 2], [0.3, 0.2, 0.1], names)
    assert written == ['кот 0.10', 'class 1 0.20', 'class 3 0.30'] * 3
    (message,) = (message for message in logged if 'No font' in message)
    assert '2 class names, such as \'行人\'; pictures show "class 1"' in message and 'FRDET_FONT' in message


@pytest.mark.parametrize('name', ['two\nlines', 'tab\there', 'nul\0', '', ' ', '\u200d', 'e\u0301'])
def test_marks_without_a_glyph(system, name):
    assert legible([name]) == (name,)
    assert draw_boxes(GREY, [[10, 40, 90, 90]], [0], [0.5], [name]).shape == (600, 900, 3)


@pytest.mark.parametrize('width', [60, 90, 200, 300, 640])
def test_a_long_name_leaves_place_for_the_score(system, written, width):
    name = 'a long name of a class of things ' * 9
    draw_boxes(np.zeros((640, width, 3), np.uint8), [[5, 50, 50, 90]], [0], [0.5], [name])
    (text,) = written
    font = ImageFont.load_default(15)  # 640 / 44
    assert text.endswith('... 0.50') and name.startswith(text[:-8])
    assert font.getlength(text) + 9 <= width  # 0.6 of 15 are free at its sides
    longer = f'{name[: len(text) - 8 + 2]}... 0.50'  # a space may have been left out
    assert font.getlength(longer) + 9 > width


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('ending', ['png', 'svg'])
def test_plots(system, tmp_path, ending):
    """Of three bars the names; without a font the browser has one, and a picture has the number instead."""

    def paint(axis):
        axis.barh(range(3), [1, 2, 3])
        axis.set_yticks(range(3), legible(names) if ending == 'png' else names)

    names = ('cat', '行', 'кот')
    save(Plot(paint), tmp_path / f'without.{ending}')
    page = draw(Plot(lambda axis: axis.set_title('行')))
    assert '行' in page
    system.append(square_font(tmp_path / 'Squares.ttf', '行'))
    for cached in (fonts._cover, fonts._legible):
        cached.cache_clear()
    save(Plot(paint), tmp_path / f'with.{ending}')
    if ending == 'png':
        with Image.open(tmp_path / 'with.png') as image:
            dark = np.asarray(image.convert('L'))[:, :100] < 60
        square = int(np.lib.stride_tricks.sliding_window_view(dark, (12, 12)).all(axis=(2, 3)).sum())
        assert square > 0  # 10 points at 100 dots an inch are 13.9
    else:
        content = (tmp_path / 'with.svg').read_text(encoding='utf-8')
        assert 'Squares' in content and '行' in content


def test_the_usual_font_has_all_of_ascii():
    """So that labels of ASCII need no search, and no matplotlib."""
    assert fonts._charset(fonts.USUAL) >= fonts._ASCII
