import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from frdet.errors import ConfigError
from frdet.insight.page import COLOURS, Link, Mark, Page, Row, Tile, data_uri, number
from frdet.insight.plots import Plot

HOSTILE = '</script><script>document.title="owned"</script>"\'><img src=x onerror=alert(1)>&amp;{{ 7*7 }}'


def image(height=60, width=90):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2, y * 3, x + y], axis=-1).astype(np.uint8)


def full_page(name='car'):
    page = Page(f'Title {name}', f'About {name}', facts={name: name, 'images': 12345}, warnings=[f'No box: {name}'])
    section = page.section(f'Anchors {name}', f'Text {name}\nMore', source=f'Paper {name}', off={'kind': ['negative']})
    section.heading(f'Heading {name}')
    section.text(f'Paragraph {name}')
    rows = [Row([name, level, 3, 0.123456, None], tags={'level': level}) for level in ('p2', 'p3')]
    section.table([name, 'level', 'count', 'IoU', 'none'], rows, caption=f'Table {name}')
    marks = [
        Mark((10, 10, 80, 50), f'large {name}\nIoU 0.7', label=name, tags={'level': 'p2', 'kind': 'positive'}),
        Mark((20, 20, 40, 40), 'small', line='dashed', tags={'level': 'p3', 'kind': 'positive'}, score=0.25),
        Mark((30, 5, 60, 30), 'off', 'red', tags={'level': 'p3', 'kind': 'negative'}, score=0.9),
    ]
    section.picture(image(), f'Picture {name}', marks=marks)
    section.gallery([Tile(image(8, 8), f'{name} 1', f'Tip {name}', tags={name: name})], caption=f'Gallery {name}')
    other = page.section('Plots')
    for _ in range(2):
        other.plot(Plot(lambda axes: axes.plot([1, 2], label=name)), f'Plot {name}')
    other.table(['a'] * 30, [['wide cell'] * 30], caption='Wide')
    return page


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.seen = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_hostile_names_stay_text():
    plain, hostile = (Tags(full_page(name).render()).seen for name in ('c' * len(HOSTILE), HOSTILE))
    assert [tag for tag, _ in hostile] == [tag for tag, _ in plain]
    assert [sorted(attrs) for _, attrs in hostile] == [sorted(attrs) for _, attrs in plain]
    assert ('img', HOSTILE + ' 1') in [(tag, attrs.get('alt')) for tag, attrs in hostile]


def test_nothing_is_fetched():
    for _, attrs in Tags(full_page().render()).seen:
        for key in ('src', 'href', 'xlink:href'):
            assert key not in attrs or attrs[key].startswith(('data:', '#'))


def test_plots_share_no_names():
    ids = [attrs['id'] for _, attrs in Tags(full_page().render()).seen if 'id' in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (1234567, '1,234,567'),
        (np.int64(7), '7'),
        (0.123456, '0.123'),
        (12.345, '12.3'),
        (999.6, '1,000'),
        (1234.4, '1,234'),
        (2.0, '2'),
        (float('nan'), 'nan'),
        (None, '–'),
        ('<b>', '<b>'),
        (True, 'True'),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(('kind', 'pattern'), [('JPEG', 1), ('PNG', 0)])
def test_pictures_are_in_the_page(kind, pattern):
    # Rough ground costs PNG much and JPEG little; one colour costs PNG nothing.
    pixels = (image(200, 100) + np.random.default_rng(0).integers(0, 6, (200, 100, 3), dtype=np.uint8)) * pattern
    head, content = data_uri(pixels).split(',')
    assert head == f'data:image/{kind.lower()};base64'
    found = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (found.format, found.size) == (kind, (100, 200))
    assert np.abs(np.asarray(found).astype(int) - pixels).mean() <= (0 if kind == 'PNG' else 12)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast():
    """WCAG 2.1: 4.5 for text, 3 for lines that carry meaning."""
    text = full_page().render()
    themes = [dict(re.findall(r'--([\w-]+): (#\w{6})', block)) for block in re.findall(r':root[^{]*\{([^}]*)\}', text)]
    assert len(themes) == 3 and themes[1] == themes[2] != themes[0]
    for theme in themes:
        for ink in ('ink', 'soft', 'link'):
            assert min(contrast(theme[ink], theme[ground]) for ground in ('page', 'panel')) >= 4.5
        assert contrast(theme['ink'], theme['warn']) >= 4.5
        assert min(contrast(colour, theme['page']) for colour in COLOURS.values()) >= 3


@pytest.mark.parametrize(
    'href', ['giou/seed_0/report.html', '../a%20%23b%3A/r.html', '.hidden', 'https://x.org/?a=b#c']
)
def test_links(href):
    page = Page('a')
    page.section('b').table([HOSTILE], [[Link(HOSTILE, href)]], caption='c')
    assert [attrs['href'] for tag, attrs in Tags(page.render()).seen if tag == 'a'][-1] == href
    assert '<a href="' + href + '">&lt;/script&gt;' in page.render()


@pytest.mark.parametrize(
    'href',
    ['', 'javascript:alert(1)', ' javascript:alert(1)', 'java\nscript:x', 'data:text/html,x', 'file:///etc/passwd']
    + ['/etc/passwd', '//evil.org', '\\\\evil', 'a b', 'a"b', 'a?b', 'https://x.org/\n', 'ftp://x.org'],
)
def test_links_that_are_refused(href):
    with pytest.raises(ValueError, match='neither'):
        Link('a', href)


def test_unwritable_path(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='cannot be written'):
        Page('a').write(tmp_path / 'file/out.html')


def test_warnings_box():
    assert 'No warnings.' in Page('a', warnings=[]).render()
    assert 'role="note"' not in Page('a').render()
    assert '1 warning<' in Page('a', warnings=['b']).render()


def test_any_page(browser, tmp_path):
    full_page(HOSTILE).write(tmp_path / 'page.html')
    browser.check(tmp_path / 'page.html')
    assert browser.run('return document.title') == f'Title {HOSTILE}'


def test_toggles(browser, tmp_path):
    full_page().write(tmp_path / 'page.html')
    browser.open(tmp_path / 'page.html')
    status = browser.find('.shown')
    assert (browser.count('.mark'), browser.count('#s1 tbody tr'), status.text) == (
        2,
        2,
        'Shown: 2 of 2 rows, 2 of 3 boxes, 1 of 1 pictures',
    )
    browser.find('input[value=negative]').click()
    assert browser.count('.mark') == 3
    browser.find('input[value=p2]').click()
    assert (browser.count('.mark'), browser.count('#s1 tbody tr')) == (2, 1)
    browser.run("const s = document.querySelector('input[type=range]'); s.value = .5;"
                "s.dispatchEvent(new Event('input', {bubbles: true}))")  # fmt: skip
    assert browser.count('.mark') == 1
    assert browser.find('output').text == '0.5'


def test_scores_shown_at_first(browser, tmp_path):
    page = full_page()
    page.sections[0].least = 0.257  # the slider has steps of 0.01, and none that hides what was asked for
    page.write(tmp_path / 'page.html')
    browser.open(tmp_path / 'page.html')
    assert (browser.find('output').text, browser.count('.mark')) == ('0.25', 2)


def test_keyboard(browser, tmp_path):
    full_page().write(tmp_path / 'page.html')
    browser.open(tmp_path / 'page.html')
    reached = []
    for _ in range(20):
        browser.press('\ue004')  # Tab
        reached.append(browser.run('const e = document.activeElement; return e.id || e.value || e.className.baseVal'))
    assert {'theme', 'p2', 'p3', 'positive', 'negative', 'picture'} <= set(reached)
    browser.run("document.querySelector('input[value=negative]').focus()")
    browser.press(' ')
    assert browser.count('.mark') == 3
    browser.run("document.querySelector('svg.picture').focus()")
    browser.press('\ue014')  # arrow right
    assert browser.find('#tip').text == 'large car\nIoU 0.7'
    browser.press('\ue014')
    assert browser.find('#tip').text == 'small'
    browser.press('\ue00c')  # Escape
    assert browser.count('#tip') == 0


def test_hovering_shows_the_smallest_box(browser, tmp_path):
    from selenium.webdriver import ActionChains

    full_page().write(tmp_path / 'page.html')
    browser.open(tmp_path / 'page.html')
    picture = browser.find('svg.picture')
    browser.run("document.querySelector('svg.picture').scrollIntoView({block: 'center'})")
    scale = picture.rect['width'] / 90
    # From the middle (45, 30) to (35, 35), inside both boxes.
    ActionChains(browser.driver).move_to_element_with_offset(picture, int(-10 * scale), int(5 * scale)).perform()
    assert browser.find('#tip').text == 'small'


def test_light_and_dark(browser, tmp_path):
    full_page().write(tmp_path / 'page.html')
    grounds = {}
    for scheme in ('light', 'dark'):
        browser.open(tmp_path / 'page.html', scheme=scheme)
        browser.run('localStorage.clear()')
        browser.open(tmp_path / 'page.html', scheme=scheme)
        ground = 'return getComputedStyle(document.body).backgroundColor'
        grounds[scheme] = browser.run(ground)
        browser.find('#theme').click()
        assert browser.run(ground) != grounds[scheme]
        browser.run('localStorage.clear()')
    assert grounds == {'light': 'rgb(255, 255, 255)', 'dark': 'rgb(20, 23, 28)'}


def test_columns_of_numbers_are_set_to_the_right():
    page = Page('a')
    rows = [['x', 3, '13.1%', '+0.01', 7], ['1 of 3', None, '', '-1e-4', 'many']]
    page.section('b').table(['name', 'count', 'share', 'Δ', 'mixed'], rows, caption='c')
    seen = [attrs.get('class') for tag, attrs in Tags(page.render()).seen if tag in ('th', 'td')]
    assert seen == [None, 'n', 'n', 'n', None] * 3


def test_a_legend_shows_how_marks_look():
    page = Page('a')
    section = page.section('b', legend='kind')
    looks = [('truth', 'blue', 'solid'), ('before', 'red', 'dotted'), ('before', 'green', 'dotted'),
             ('mixed', 'red', 'solid'), ('mixed', 'red', 'dashed')]  # fmt: skip
    section.picture(image(), 'c', marks=[
        Mark((0, 0, 9, 9), 'd', colour, line, tags={'kind': kind, 'level': 'p2'}) for kind, colour, line in looks
    ])  # fmt: skip
    found = {value: section.swatch('kind', value) for value in ('truth', 'before', 'mixed')}
    assert (found['truth'].css_colour, found['truth'].line) == (COLOURS['blue'], 'solid')
    assert (found['before'].css_colour, found['before'].line) == ('currentColor', 'dotted')
    assert found['mixed'] is None and section.swatch('level', 'p2') is None
    swatches = [attrs for _, attrs in Tags(page.render()).seen if attrs.get('class', '').startswith('swatch')]
    assert [attrs['class'] for attrs in swatches] == ['swatch solid', 'swatch dotted']


@pytest.mark.parametrize('width', [1280, 390])
def test_names_can_be_read(browser, tmp_path, width):
    """As large on a large picture as on a small one, not on each other, and inside the picture."""
    page = Page('a')
    for factor in (1, 10):
        boxes = [(10, 10, 80, 50), (12, 11, 50, 40), (80, 2, 89, 20)]
        marks = [Mark([factor * v for v in box], 'd', label='a name') for box in boxes]
        page.section('b').picture(image(60 * factor, 90 * factor), 'c', marks=marks)
    page.write(tmp_path / 'page.html')
    browser.open(tmp_path / 'page.html', width=width)
    assert browser.run('return document.querySelectorAll(".mark text[hidden]").length') == 2  # the second of each
    sizes = browser.run("""
        return [...document.querySelectorAll('.mark text:not([hidden])')].map(text => {
          const box = text.getBoundingClientRect(), svg = text.closest('svg').getBoundingClientRect();
          return [box.height, svg.right - box.right, box.top - svg.top];
        })""")
    assert len(sizes) == 4
    for height, right, top in sizes:
        assert 12 <= height <= 24 and right >= -3 and top >= -3  # the outline of the letters counts


def test_a_picture_shown_twice_is_in_the_page_once(browser, tmp_path):
    page = Page('a')
    other = image()[::-1].copy()
    for pixels in (image(), other, image()):
        section = page.section('b', off={'kind': ['hidden']})
        section.picture(pixels, 'c', marks=[Mark((10, 10, 80, 50), 'd', tags={'kind': 'hidden'})], filtered=True)
    page.write(tmp_path / 'page.html')
    assert (tmp_path / 'page.html').read_text().count('data:image/') == 2
    browser.open(tmp_path / 'page.html')
    assert browser.count('figure') == 0
    # The third is drawn, although the first, which holds it, is hidden.
    browser.find('#s3 input').click()
    browser.run("document.querySelector('#s3 svg').scrollIntoView()")
    browser.find('#s3 svg').screenshot(str(tmp_path / 'shown.png'))
    with Image.open(tmp_path / 'shown.png') as shown:
        seen = np.asarray(shown.convert('RGB').resize((90, 60))).astype(int)
    assert np.abs(seen - image()).mean() < 12


def test_every_value_by_one_button(browser, tmp_path):
    """It stands where there are more than four; a filtered picture without a mark is there while nothing is off."""
    page = Page('Classes')
    section = page.section('Images', tiled=True)
    marks = [Mark((0, 0, 9, 9), name, tags={'class': name, 'kind': 'object'}) for name in 'abcde']
    for caption, found, filtered in (('marked', marks, True), ('empty', [], True), ('stays', marks, False)):
        section.picture(image(), caption, marks=found, filtered=filtered)
    page.write(tmp_path / 'page.html')
    browser.open(tmp_path / 'page.html')
    assert (browser.count('fieldset button'), browser.count('.mark'), browser.count('figure')) == (1, 10, 3)
    browser.find('button.every').click()
    assert (browser.count('.mark'), browser.count('figure')) == (0, 1)
    browser.run("document.querySelector('button.every').focus()")
    browser.press(' ')
    assert (browser.count('.mark'), browser.count('figure')) == (10, 3)
    browser.find('input[value=a]').click()
    assert (browser.count('.mark'), browser.count('figure')) == (8, 2)
    browser.find('input[value=object]').click()  # the only value of its tag: no button beside it
    assert (browser.count('.mark'), browser.count('figure')) == (0, 1)
