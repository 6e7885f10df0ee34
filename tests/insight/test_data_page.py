"""The page of what was found in data: counts, findings by their harm, and the pictures with their boxes."""

import re

import pytest
from PIL import Image

from frdet.apis.checking import DataReport
from frdet.datasets.checking import Findings, Place
from frdet.insight.data_page import write_data_page
from tests.insight.report.test_training_page import table_of


@pytest.fixture(scope='module')
def reports(tmp_path_factory):
    """A small box in an image that is shown at half its size, a pair, an error, and a picture that cannot be read."""
    tmp_path = tmp_path_factory.mktemp('images')
    Image.effect_noise((960, 400), 60).convert('RGB').save(tmp_path / 'a.png')
    Image.new('RGB', (60, 40), 'red').save(tmp_path / 'b.png')
    a, b, gone = (str(tmp_path / name) for name in ('a.png', 'b.png', 'gone.png'))
    train, together = Findings(), Findings()
    train.add('box without area', 'boxes[3]: <none>', Place(a, [[100, 20, 300, 60]], ['cat']))
    train.add('box without area', 'boxes[4]', Place(gone, [[1, 2, 3, 2]], ['cat']))
    train.add('missing image', "'gone.png'")
    train.add('two classes on one box', 'boxes[7]', Place(b, [[1, 2, 30, 30], [1, 2, 30, 31]], ['cat', 'd<b>og']))
    together.add('near-duplicate in two splits', 'b.png of val is like a.png of train', Place(b), Place(a))
    return [
        DataReport('x.json', 'images', ('train',), '2 images', train, {'cat': 9, 'd<b>og': 1200}),
        DataReport('y.json', 'images', ('val', 'test'), '1 images', Findings(), {'cat': 0, 'owl': 3}),
        DataReport('config.py', '', ('train', 'val'), '2 annotation files', together),
    ]


@pytest.fixture(scope='module')
def content(reports, tmp_path_factory):
    out = tmp_path_factory.mktemp('page') / 'new' / 'page.html'
    path = write_data_page(reports, out, source='config.py')
    assert path == out
    return path.read_text()


def test_counts(content):
    assert table_of(content, 'Boxes of each class, the rarest first; crowds and ignored ones are left out') == [
        ['owl', '0', '3'],
        ['cat', '9', '0'],
        ['d&lt;b&gt;og', '1,200', '0'],
    ]
    assert table_of(content, 'Annotation files')[1] == ['val, test', 'y.json', '1 images', 'images']


def test_findings_by_their_harm(content):
    rows = table_of(content, 'All findings')
    assert [row[:4] for row in rows] == [
        ['error', 'missing image', '1', 'train'],
        ['note', 'near-duplicate in two splits', '1', 'train, val'],
        ['note', 'two classes on one box', '1', 'train'],
        ['note', 'box without area', '2', 'train'],
    ]
    assert rows[3][5] == 'boxes[3]: &lt;none&gt;; boxes[4]'
    assert '1 × missing image: skipped in training, stops evaluation' in content
    assert 'A run would stop or be wrong.' in content


def test_pictures(content):
    """Sections in the same order; boxes in pixels of the shrunk picture; a pair stands side by side."""
    titles = re.findall(r'<h2[^>]*>(.*?)</h2>', content)
    assert titles[-3:] == ['Near-duplicate in two splits', 'Two classes on one box', 'Box without area']
    captions = re.findall(r'<figcaption>(.*?)(?: <span|</fig)', content)
    assert captions == ['train and val: b.png, 1 of 2', 'train and val: a.png, 2 of 2', 'train: b.png', 'train: a.png']
    boxes = re.findall(r'<rect x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"/>(?:<text.*?>(.*?)<)?', content)
    assert boxes[-1] == ('50.0', '10.0', '100.0', '20.0', 'cat')
    assert [box[4] for box in boxes[:2]] == ['', 'cat / d&lt;b&gt;og']
    assert '200 x 40 pixels at (100, 20)' in content


def test_nothing_found(tmp_path):
    report = DataReport('x.json', 'images', ('train',), '2 images', Findings(), {})
    content = write_data_page([report], tmp_path / 'page.html', source='data').read_text()
    assert 'Nothing to report.' in content and 'Nothing stops a run or makes it wrong.' in content
