"""The page of a trace made by hand: its numbers, what pressing and typing does, and 40,000 objects."""

import json
import re

import pytest
from PIL import Image

from frdet.errors import ConfigError, DataError
from frdet.insight.trace import page as trace_page
from frdet.insight.trace.model import CARDS, DETECTIONS, OBJECTS, Stage
from frdet.insight.trace.page import write_trace_page
from tests.insight.trace.made import HELPS, NMS, STAGES, THINGS, data_of, make_trace

ENTER, END, TAB = '\ue007', '\ue010', '\ue004'
LEFT, UP, RIGHT, DOWN = '\ue012', '\ue013', '\ue014', '\ue015'
HEAD = ('stage', 'class', 'why', 'width', 'height', 'image', 'file', 'object')
HOSTILE = '</script><script>document.title="owned"</script>"\'><img src=x onerror=alert(1)>'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = make_trace(tmp_path_factory.mktemp('trace'))
    return write_trace_page(folder, folder / 'trace.html', helps=HELPS)


@pytest.fixture
def shown(made, browser):
    browser.open(made)
    return browser


def lines(browser, cells='stage class object'):
    """The rows in view: some of their cells."""
    places = [HEAD.index(cell) for cell in cells.split()]
    return browser.run(
        f'return [...document.querySelectorAll("#rows tr[id]")].map(r => {places}.map(c => r.cells[c].textContent))'
    )


def step(browser, stage):
    return browser.find(f'#funnel li:nth-child({[one.name for one in STAGES].index(stage) + 2}) button')


def status(browser):
    return {element.text for element in browser.driver.find_elements('css selector', '.chosen')}


def split_by(browser, name):
    browser.find(f'#split label:nth-of-type({["all", "size", "class", "aspect", "crowding"].index(name) + 1})').click()


def bars(browser):
    """Of every group: its name, what its segments say, and its count."""
    return browser.run("""return [...document.querySelectorAll('#funnel li')].map(li => [
        li.querySelector('.name').textContent, [...li.querySelectorAll('.segment')].map(s => s.ariaLabel),
        li.querySelector('.count').textContent])""")


def test_the_funnel(shown):
    texts = [element.text.split('\n') for element in shown.driver.find_elements('css selector', '#funnel .step')]
    # 20 objects; each loses 5%.
    assert texts == [
        ['1 resizing', '−1 5.0%'],
        ['2 no anchor', '−1 5.0%'],
        ['3 RPN score', '0 0.0%'],
        ['4 proposal NMS', '−2 10.0%'],
        ['5 background', '−3 15.0%'],
        ['6 class NMS', '−1 5.0%'],
        ['found', '12 60.0%'],
    ]
    widths = shown.run("""return [...document.querySelectorAll('#funnel .step .bar')].map(
        bar => [...bar.children].map(part => Math.round(100 * part.clientWidth / bar.clientWidth)))""")
    # Still on their way after each stage, and lost at it.
    assert widths == [[95, 5], [90, 5], [90], [80, 10], [65, 15], [60, 5], [60]]
    tip = step(shown, 'proposal NMS').get_attribute('data-tip')
    assert tip == (
        '2 of 20 objects are lost at proposal NMS (10.0%); 16 go on\n'
        'Lost because a proposal with a higher score suppressed its own.\nmodel.rpn_head.nms_iou_thr = 0.7'
    )


def test_a_pressed_bar_chooses(shown):
    assert (status(shown), len(lines(shown)), shown.count('.clear')) == ({'20 of 20 objects'}, 20, 0)
    # Of the objects 1, 4 and 14 with a card, the image of the last is missing.
    assert shown.count('#s3 > figure') == 2
    bar = step(shown, 'proposal NMS')
    bar.click()
    assert lines(shown) == [['proposal NMS', 'bus', '4'], ['proposal NMS', 'bus', '5']]
    assert status(shown) == {'2 of 20 objects: lost at proposal NMS'}
    assert (bar.get_attribute('aria-pressed'), shown.count('#s3 > figure')) == ('true', 1)
    bar.click()
    assert (len(lines(shown)), bar.get_attribute('aria-pressed')) == (20, 'false')
    step(shown, 'resizing').click()
    assert lines(shown) == [['resizing', 'person', '12']]
    shown.find('.clear').click()
    assert (len(lines(shown)), shown.count('[aria-pressed=true]'), shown.count('#s3 > figure')) == (20, 0, 2)
    step(shown, 'RPN score').click()  # a stage that lost nothing is there, too
    assert shown.find('#rows tbody').text == 'No object.'


def test_by_keyboard(shown):
    shown.run("document.querySelector('#funnel li:nth-child(6) button').focus()")
    shown.press(ENTER)
    assert status(shown) == {'3 of 20 objects: lost at background'}
    shown.press(' ')
    assert status(shown) == {'20 of 20 objects'}
    shown.press(' ')
    shown.run("document.querySelector('#rows').focus()")
    shown.press(DOWN)
    assert shown.find('[aria-selected=true]').get_attribute('id') == 'row1'
    assert shown.find('#rows').get_attribute('aria-activedescendant') == 'row1'
    shown.press(ENTER)
    assert shown.find('#object h3').text == 'person 15: image 8, 8.png'
    shown.press(END, ENTER)
    assert shown.find('#object h3').text == 'cat 20: image 8, 8.png'
    shown.run("document.querySelector('#split input').focus()")
    shown.press(DOWN)
    assert [name for name, *_ in bars(shown)] == ['small', 'medium', 'large']
    assert status(shown) == {'3 of 20 objects: lost at background'}  # the stage stays chosen
    shown.press(TAB, TAB, ' ')  # the button that shows all, then the first stage
    assert status(shown) == {'1 of 20 objects: lost at resizing'}
    # Tab stops once at all bars; in a row, the arrow keys stay at their place as far as the other row is as long.
    shown.run("document.querySelector('#funnel button').focus()")
    focused = 'return document.activeElement.ariaLabel ?? document.activeElement.textContent'
    for keys, said in (
        (RIGHT + DOWN, 'medium: 1 of 8 objects are lost at background (12.5%)'),
        (RIGHT * 2, 'medium: 6 of 8 objects are found (75.0%)'),
        (DOWN, 'large: 1 of 3 objects are found (33.3%)'),
        (UP + UP + LEFT * 3, 'small'),
        (UP, 'small'),
    ):
        shown.press(*keys)
        assert shown.run(focused) == said
    shown.press(TAB)
    assert shown.run('return document.activeElement.id') == 'search'


def test_groups(shown):
    split_by(shown, 'size')
    assert bars(shown) == [
        [
            'small',
            [
                'small: 1 of 9 objects are lost at resizing (11.1%)',
                'small: 1 of 9 objects are lost at no anchor (11.1%)',
                'small: 2 of 9 objects are lost at background (22.2%)',
                'small: 5 of 9 objects are found (55.6%)',
            ],
            '5 of 9 55.6%',
        ],
        [
            'medium',
            [
                'medium: 1 of 8 objects are lost at background (12.5%)',
                'medium: 1 of 8 objects are lost at class NMS (12.5%)',
                'medium: 6 of 8 objects are found (75.0%)',
            ],
            '6 of 8 75.0%',
        ],
        [
            'large',
            ['large: 2 of 3 objects are lost at proposal NMS (66.7%)', 'large: 1 of 3 objects are found (33.3%)'],
            '1 of 3 33.3%',
        ],
    ]
    shown.find('#funnel li:first-child .segment:nth-of-type(3)').click()
    assert lines(shown) == [['background', 'person', '14'], ['background', 'person', '15']]
    assert status(shown) == {'2 of 20 objects: lost at background, size small'}
    shown.find('#funnel li:nth-child(3) .name').click()
    assert [row[2] for row in lines(shown)] == ['4', '5', '3']  # lost ones stand first
    shown.find('#key li:nth-child(5) button').click()  # all groups of a stage
    assert [row[2] for row in lines(shown)] == ['14', '15', '20']
    split_by(shown, 'class')  # those with the lowest recall first: 3 of 6, 6 of 10, 3 of 4; there is no dog
    assert [(name, count) for name, _, count in bars(shown)] == [
        ('bus', '3 of 6 50.0%'), ('person', '6 of 10 60.0%'), ('cat', '3 of 4 75.0%')
    ]  # fmt: skip


def test_sorting_and_searching(shown):
    head = shown.find('#rows th:nth-child(4) button')
    head.click()
    assert [row[0] for row in lines(shown, 'width')[:4]] == ['5', '10', '20', '20']
    head.click()
    assert [row[0] for row in lines(shown, 'width')[:4]] == ['120', '120', '100', '100']
    assert head.find_element('xpath', '..').get_attribute('aria-sort') == 'descending'
    score = shown.find('#rows th:nth-child(13)')
    for order in ('ascending', 'descending'):  # those without a detection stand last both times
        score.find_element('css selector', 'button').click()
        assert score.get_attribute('aria-sort') == order
        assert [row[0] for row in lines(shown)] == ['found'] * 12 + [row[0] for row in lines(shown)][12:]
    shown.find('#rows th:nth-child(8) button').click()  # as numbers: 2 before 10
    assert [row[2] for row in lines(shown)] == [str(n) for n in range(1, 21)]
    search = shown.find('#search')
    for words, found in (
        ('BUS', ['1', '2', '3', '4', '5', '6']),
        ('8.png cat', ['17', '18', '19', '20']),
        ('19', ['19']),
    ):
        search.clear()
        search.send_keys(words)
        assert [row[2] for row in lines(shown)] == found, words
    assert status(shown) == {'1 of 20 objects: with 19'}
    search.clear()
    search.send_keys('bus')
    step(shown, 'proposal NMS').click()
    assert (status(shown), shown.count('#s3 > figure')) == ({'2 of 20 objects: lost at proposal NMS, with bus'}, 1)


def test_the_object(shown, made):
    step(shown, 'proposal NMS').click()
    shown.find('#rows tr[id]').click()
    verdict = shown.find('#object .verdict').text
    assert verdict == f'Lost at proposal NMS: {NMS}; model.rpn_head.nms_iou_thr is 0.7'
    numbers = shown.find('#object dl').text.split('\n')
    assert numbers[:2] == ['width × height, in pixels', '120 × 110'] and numbers[-2:] == [
        'best IoU with an anchor',
        '0.96',
    ]
    command = (
        "python tools/inspect_step.py 'configs/made by hand.py' --checkpoint 'it'\"'\"'s.pth' --split test --image 7"
    )
    assert shown.find('#object pre').text == command
    # The object, an anchor, a proposal and a detection; the box far away is outside of the crop.
    assert shown.count('#object .mark') == 4
    looks = shown.run("""return [...document.querySelectorAll('#object .mark rect')].map(getComputedStyle).map(
        style => [style.stroke, style.strokeDasharray])""")
    assert [len(set(look)) for look in zip(*looks, strict=True)] == [4, 4]
    shown.find('#s3 input[value=proposal]').click()
    assert shown.count('#object .mark') == 3
    shown.find('#object .top button').click()
    assert shown.find('#object').text == 'No object is chosen: press a row of the table, or a picture.'
    assert shown.count('#s3 > figure') == 1  # the picture is back at its place
    shown.find('.clear').click()
    shown.find('#s3 > figure figcaption button').send_keys(ENTER)
    assert shown.find('#object h3').text.startswith('bus 4')
    assert shown.run('return document.activeElement.textContent') == 'Close'
    shown.find('#s3 > figure:last-of-type figcaption button').click()
    assert shown.find('#object .verdict').text == 'Found: IoU 0.91, score 0.99'
    shown.find('#rows tr[id]').click()  # one that is not drawn
    assert '--cards N' in shown.find('#object .hint').text
    assert shown.find('#object .verdict').text == 'Lost at resizing: the network sees fewer than 8 pixels of it'
    assert shown.count('#s3 > figure') == 2


def test_light_dark_and_narrow(made, browser):
    browser.check(made)
    browser.open(made, width=390)
    split_by(browser, 'class')
    browser.find('#rows tr[id]').click()
    assert browser.run('return document.documentElement.scrollWidth') <= 390
    assert browser.console() == []


def test_tips(shown):
    shown.run("document.querySelector('#funnel li:nth-child(5) button').focus()")
    shown.press(DOWN)  # focus that a key moves shows the tip
    assert shown.find('#tip').text.startswith('3 of 20 objects are lost at background')
    shown.press('\ue00c')  # Escape
    assert shown.count('#tip') == 0


def test_forty_thousand_objects(tmp_path, browser):
    """Choosing, sorting, searching and scrolling each take less than a tenth of a second."""
    make_trace(tmp_path, things=THINGS * 2000)
    path = write_trace_page(tmp_path, tmp_path / 'trace.html')
    assert path.stat().st_size < 3_000_000
    browser.open(path)
    took = {
        act: browser.seconds(act)
        for act in (
            "document.querySelector('#funnel li:nth-child(8) button').click()",
            "document.querySelector('#rows th:nth-child(9) button').click()",
            "document.querySelector('#rows th:nth-child(2) button').click()",
            "const search = document.getElementById('search'); search.value = 'bus 7';"
            "search.dispatchEvent(new Event('input'))",
            "document.querySelector('.clear').click()",
            "document.getElementById('rows').scrollTop = 640000",
        )
    }
    assert all(seconds < 0.1 for seconds in took.values()), took
    assert browser.count('#rows tr[id]') < 40
    rows = browser.run("return [...document.querySelectorAll('#rows tr[id]')].map(row => Number(row.id.slice(3)))")
    assert rows[4] == 20_000 and rows == list(range(rows[0], rows[0] + len(rows)))
    assert status(browser) == {'40,000 of 40,000 objects'}


def test_hostile_names(tmp_path, browser):
    things = [(HOSTILE, *thing[1:-1], f'{thing[-1]} suppressed by {HOSTILE} 3') for thing in THINGS]
    stages = [Stage(stage.name, HOSTILE, {HOSTILE: HOSTILE}) for stage in STAGES]
    wrong = [(HOSTILE, 0.5, 'background', HOSTILE)]
    make_trace(tmp_path, things=things, wrong=wrong, stages=stages, config=HOSTILE, notes=[HOSTILE], classes=[HOSTILE])
    cards = json.loads((tmp_path / CARDS).read_text())
    for card in cards:
        card['around'][0]['text'] = HOSTILE
    (tmp_path / CARDS).write_text(json.dumps(cards))
    path = write_trace_page(tmp_path, tmp_path / 'trace.html')
    browser.check(path)
    browser.open(path)
    browser.find('#rows tr[id]').click()
    split_by(browser, 'class')
    assert browser.run('return document.title') == 'Where were the objects lost?'
    assert browser.count('img') == 0
    assert HOSTILE in browser.find('#object .verdict').text
    assert bars(browser)[0][0] == HOSTILE


def test_nothing_to_show(tmp_path, browser):
    path = write_trace_page(make_trace(tmp_path, things=[], wrong=[], cards=()), tmp_path / 'trace.html')
    browser.check(path)
    browser.open(path)
    assert browser.find('#rows tbody').text == 'No object.'
    assert 'No object is drawn' in browser.find('#drawn').text
    content = path.read_text()
    assert 'There is no false positive.' in content and 'The data have no object' in content
    assert '>What would help</a>' not in content
    split_by(browser, 'class')
    assert (bars(browser), browser.console()) == ([], [])


def test_false_positives_and_help(made):
    content = made.read_text()
    cells = re.findall(r'<td[^>]*>(.*?)</td>', content[content.index('False positives by kind</p>') :])
    assert cells[:4] == ['background', '2', '50.0%', 'overlaps no object by 0.1']
    levels = content[content.index('by the level of their anchor</p>') :]
    assert re.findall(r'<td[^>]*>(.*?)</td>', levels)[:10] == ['p3', '2', '0', '0', '2', 'p4', '1', '1', '0', '0']
    best = re.findall(r'<td[^>]*>(.*?)</td>', content[content.index('The 4 false positives') :])
    assert best[:8] == ['0.95', 'person', 'localisation', '7', '7.png', '1', '0.25', 'p4']
    helps = re.findall(r'<td[^>]*>(.*?)</td>', content[content.index('Changes, the greatest gain first</p>') :])
    assert helps[:7] == ['proposal NMS', 'model.rpn_head.nms_iou_thr: 0.7\xa0→ 0.8', '60.0%', '70.0%', '+10.0%',
                         '[+5.0%,\xa0+15.0%]', 'a gain']  # fmt: skip
    assert helps[11:18][-1] == 'within noise'
    assert '>model.rpn_head.nms_iou_thr=0.8</pre>' in content


def test_what_stands_at_the_top(tmp_path):
    make_trace(tmp_path, checkpoint=None, notes=['OneStage tells no scores.'], split='val')
    content = write_trace_page(tmp_path, tmp_path / 'new/trace.html').read_text()
    for words in ('<dd>none</dd>', 'OneStage tells no scores.', '<dd>60.0%</dd>', '<dt>coco/bbox_mAP</dt>'):
        assert words in content
    assert 'coco/bbox_mAP_s' not in content  # it is no headline
    assert '1 picture is missing, because an image cannot be read, such as' in content
    assert data_of(tmp_path / 'new/trace.html')['command'].endswith(".py' --split val --image ")
    assert Image.open(tmp_path / 'new/funnel.png').size[0] > 600


def test_room_for_pictures(tmp_path, monkeypatch):
    """The first of every stage, in the order of the stages, then the second of every stage."""
    monkeypatch.setattr(trace_page, 'PICTURES', 1500)
    path = write_trace_page(make_trace(tmp_path, cards=(1, 2, 4, 5, 12)), tmp_path / 'trace.html')
    data = data_of(path)
    drawn = [data['columns']['id'][row] for row in data['pictured']]
    assert drawn == ['12', '4', '1', '5', '2'][: len(drawn)] and 0 < len(drawn) < 5
    assert f'no room for {5 - len(drawn)} of the 5 pictures' in path.read_text()


@pytest.mark.parametrize('name', [OBJECTS, DETECTIONS, CARDS])
def test_no_whole_trace(tmp_path, name):
    make_trace(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match='is no whole trace .*run tools/trace_objects.py again'):
        write_trace_page(tmp_path, tmp_path / 'trace.html')


def test_wrong_places(tmp_path):
    with pytest.raises(DataError, match='is no trace .*give a folder'):
        write_trace_page(tmp_path, tmp_path / 'trace.html')
    make_trace(tmp_path / 'a')
    with pytest.raises(ConfigError, match='cannot be written'):
        write_trace_page(tmp_path / 'a', tmp_path / 'a' / OBJECTS / 'trace.html')
