import json
import runpy
import sys

import pytest

from frdet.datasets.shapes import write_shapes
from tests.insight import families
from tests.insight.step.steps import coco_config, shapes_config
from tests.tools.test_train_and_test import ROOT, run_tool
from tests.weights import NARROW_WORDS

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'
HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope='module')
def hostile_root(tmp_path_factory):
    """Drawn data of which a class is called as nobody should call one."""
    root = write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=3, num_val=1)
    path = root / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['categories'][0]['name'] = HOSTILE
    for annotation in content['annotations'][::2]:
        annotation['category_id'] = content['categories'][0]['id']
    path.write_text(json.dumps(content))
    return root


def inspect(root, out, *args):
    return run_tool(
        'inspect_step', CONFIG, '--out', out, *args, '--cfg-options', *NARROW_WORDS,
        f'train_dataloader.dataset.data_root={root}', root=root,
    )  # fmt: skip


def test_writes_a_page(hostile_root, tmp_path, browser):
    page = tmp_path / 'new/step.html'
    done = inspect(hostile_root, page, '--image', 1, 3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f'The page is {page}'
    assert 'warning: The weights are random' in done.stdout
    browser.check(page)
    browser.open(page)
    assert browser.run('return document.title') == 'One training step'
    headings = browser.run('return [...document.querySelectorAll("#s3 h3")].map(e => e.textContent)')
    assert headings == ['image 1', 'image 3']
    # Switching a level off hides its boxes and its rows of the tables, and nothing else.
    for section in (3, 4, 5):
        box = browser.find(f'#s{section} input[value=p2]')
        rows = f'#s{section} tbody tr'
        before, marks = browser.count(rows), browser.count(f'#s{section} .mark')
        box.click()
        assert browser.count(rows) == before - 2
        assert browser.count(f'#s{section} .mark') < marks
    box = browser.find('#s3 input[value="negative, sampled"]')
    marks = browser.count('#s3 .mark')
    box.click()
    assert browser.count('#s3 .mark') > marks


def test_what_is_wrong_is_said_in_words(hostile_root, tmp_path):
    done = inspect(hostile_root, tmp_path / 'a.html', '--image', 99)
    assert done.returncode == 1
    assert 'error: No image 99 among the 3' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'a.html').exists()


def test_what_a_detector_has_not_is_said_in_a_line(hostile_root, tmp_path, monkeypatch, capsys):
    families.one_stage(shapes_config(hostile_root)).dump(tmp_path / 'one_stage.py')
    page = tmp_path / 'step.html'
    words = [tmp_path / 'one_stage.py', '--out', page, '--image', 1, 2]
    monkeypatch.setattr(sys, 'argv', ['tools/inspect_step.py', *map(str, words)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path('tools/inspect_step.py', run_name='__main__')
    assert not ended.value.code
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('not shown: ')]
    assert len(lines) == 1 and 'Objectness and proposals' in lines[0] and 'RoIs' in lines[0]
    assert lines[0].removeprefix('not shown: ') in page.read_text()


def test_images_of_a_config(coco_root, tmp_path, browser):
    from frdet.insight.step import inspect_step

    page, _ = inspect_step(coco_config(coco_root))
    page.write(tmp_path / 'step.html')
    browser.check(tmp_path / 'step.html')
