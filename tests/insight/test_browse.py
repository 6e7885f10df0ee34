import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from PIL import Image

from frdet.errors import ConfigError
from frdet.insight.browse import browse_dataset, show_image
from frdet.insight.page import Page
from frdet.structures import DetDataSample
from tests.insight.report.test_training_page import table_of

# Boxes as COCO has them, x, y, width and height, in images 60 wide and 40 high.
OBJECTS = [
    dict(image_id=1, category_id=1, bbox=[10, 5, 20, 30], iscrowd=0),
    dict(image_id=1, category_id=2, bbox=[40, 10, 10, 10], iscrowd=1),
    dict(image_id=2, category_id=2, bbox=[0, 0, 30, 20], iscrowd=0),
]
NAMES = ['cat', 'd<b>og', 'owl', 'elk']  # the second needs escaping, the others have no box


@pytest.fixture
def cfg(tmp_path):
    """Three images, the last one without objects; the pipeline doubles them and always mirrors them."""
    for number in (1, 2, 3):
        Image.effect_noise((60, 40), 60).convert('RGB').save(tmp_path / f'{number}.png')
    images = [dict(id=k, file_name=f'{k}.png', width=60, height=40) for k in (1, 2, 3)]
    objects = [dict(id=k, area=1, **item) for k, item in enumerate(OBJECTS, start=1)]
    categories = [dict(id=k, name=name) for k, name in enumerate(NAMES, start=1)]
    content = dict(images=images, annotations=objects, categories=categories)
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    pipeline = [
        dict(type='LoadImage'),
        dict(type='Resize', scale=(80, 120)),
        dict(type='RandomFlip', prob=1.0),
        dict(type='PackDetInputs'),
    ]
    dataset = dict(
        type='CocoDataset',
        ann_file=str(tmp_path / 'truth.json'),
        data_prefix=dict(img=str(tmp_path)),
        pipeline=pipeline,
    )
    return Config(dict(train_dataloader=dict(dataset=dataset), test_dataloader=None))


def boxes_of(content):
    """Of every picture its caption, and x, y, width, height, label and line of its boxes."""
    found = []
    for figure in content.split('<figure data-filtered>')[1:]:
        caption = re.search(r'<figcaption>(.*?)(?: <span|</fig)', figure)[1]
        marks = re.findall(
            r'class="mark (\w+)".*?<rect x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"/>(?:<text.*?>(.*?)<)?',
            figure.split('</figure>')[0],
            re.S,
        )
        found.append((caption, [(*map(float, mark[1:5]), mark[5], mark[0]) for mark in marks]))
    return found


def test_images_before_and_after_the_pipeline(cfg, tmp_path):
    content = browse_dataset(cfg, tmp_path / 'out/page.html', num=2).read_text()
    after, before, *others = boxes_of(content)
    assert before == (
        '1.png, on disk: 60 x 40 pixels, 2 boxes',
        [(10, 5, 20, 30, 'cat', 'solid'), (40, 10, 10, 10, 'd&lt;b&gt;og', 'dashed')],
    )
    # Twice as large, then mirrored: x is 120 - 2 * (10 + 20) = 60, and 120 - 2 * (40 + 10) = 20.
    assert after == (
        '1.png (id 1), after the pipeline: 120 x 80 pixels, 2 boxes, mirrored',
        [(60, 10, 40, 60, 'cat', 'solid'), (20, 20, 20, 20, 'd&lt;b&gt;og', 'dashed')],
    )
    assert [caption[:5] for caption, _ in others] == ['2.png', '2.png']
    assert 'cat\n20 x 30 pixels' in content and 'd&lt;b&gt;og, crowd\n10 x 10 pixels' in content
    assert 'LoadImage → Resize → RandomFlip → PackDetInputs' in content


def test_masks_are_outlined(cfg, tmp_path):
    """The mask of the network's input, 600 pixels wide, in a picture of 300; the crowd has none."""
    mask = torch.zeros(1, 400, 600, dtype=torch.uint8)
    mask[0, 100:200, 300:500] = 1
    sample = DetDataSample(metainfo=dict(img_id=1))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[300.0, 100, 500, 200]]), labels=torch.ones(1).long())
    sample.gt_instances.masks = mask
    sample.ignored_instances = InstanceData(bboxes=torch.tensor([[0.0, 0, 20, 20]]), labels=torch.zeros(1).long())
    page = Page('masks')
    item = dict(inputs=torch.zeros(3, 400, 600, dtype=torch.uint8), data_samples=sample)
    show_image(page.section('Images'), {}, item, NAMES, 300)
    owl, crowd = page.render().split('<g class="mark ')[1:]
    path = re.search(r'height="50.0"/><path d="M(.*?)Z"/><text', owl)[1]
    corners = sorted([*map(float, corner.split())] for corner in path.split('L'))
    assert corners == [[150.5, 50.5], [150.5, 99.5], [249.5, 50.5], [249.5, 99.5]]
    assert '<path' not in crowd.split('</g>')[0]


def test_masks_on_disk_are_outlined(cfg, tmp_path):
    """A polygon in the image on disk, and after the pipeline twice as large and mirrored."""
    file = tmp_path / 'truth.json'
    content = json.loads(file.read_text())
    for item in content['annotations']:
        x, y, width, height = item['bbox']
        item['segmentation'] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    file.write_text(json.dumps(content))
    cfg.train_dataloader.dataset.with_masks = True
    page = browse_dataset(cfg, tmp_path / 'page.html', num=1).read_text()
    (after, crowd), disk = (figure.split('<g class="mark ')[1:] for figure in page.split('<figure data-filtered>')[1:])
    assert '<path' in after and '<path' not in crowd.split('</g>')[0] and len(disk) == 2
    lines = [re.search(r'<path d="M(.*?)Z"', mark)[1].split('L') for mark in (after, *disk)]
    corners = [[[*map(float, corner.split())] for corner in line] for line in lines]
    # After the pipeline (60, 10, 100, 70); on disk the cat (10, 5, 30, 35) and the crowd (40, 10, 50, 20).
    expected = [([60.5, 10.5], [99.5, 69.5]), ([10.5, 5.5], [29.5, 34.5]), ([40.5, 10.5], [49.5, 19.5])]
    assert [(min(line), max(line)) for line in corners] == expected


def test_label_statistics(cfg, tmp_path):
    """Of all images, not only of those shown; the crowd does not count. 20 x 30 and 30 x 20 are below 32 x 32."""
    content = browse_dataset(cfg, tmp_path / 'page.html', num=1).read_text()
    assert table_of(content, 'Classes of the train data') == [
        ['cat', '1', '1', '1', '0', '0'],
        ['d&lt;b&gt;og', '1', '1', '1', '0', '0'],
        ['owl', '0', '0', '0', '0', '0'],
        ['elk', '0', '0', '0', '0', '0'],
    ]
    assert '2 of 4 classes have no box in this split: owl, elk' in content


def test_large_images_are_drawn_small(cfg, tmp_path):
    cfg.train_dataloader.dataset.pipeline[1].scale = (800, 1200)
    content = browse_dataset(cfg, tmp_path / 'page.html', num=1).read_text()
    (caption, marks), _ = boxes_of(content)
    assert caption == '1.png (id 1), after the pipeline: 1200 x 800 pixels, 2 boxes, mirrored'
    assert 'viewBox="0 0 640 427"' in content  # 800 * 640 / 1200 = 426.7
    assert marks[0][0] == pytest.approx(600 * 640 / 1200)


def test_most_images_fit_a_page(cfg, tmp_path):
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=20, dataset=cfg.train_dataloader.dataset)
    cfg.train_dataloader.dataset.dataset.pipeline[1].scale = (240, 360)
    page = browse_dataset(cfg, tmp_path / 'page.html', num=60)
    assert page.stat().st_size < 10e6
    steps = 'The pipeline: LoadImage → Resize → RandomFlip → PackDetInputs.'  # of the data set inside
    assert steps in page.read_text()
    assert 'viewBox="0 0 353 235"' in page.read_text()  # 120 pictures of 6 MB: sqrt(6e6 / 120 / 0.4) = 353.6


def test_no_more_than_there_are(cfg, tmp_path):
    assert len(boxes_of(browse_dataset(cfg, tmp_path / 'page.html', num=50).read_text())) == 6


def test_the_seed_decides_what_is_random(cfg, tmp_path):
    cfg.train_dataloader.dataset.pipeline[2].prob = 0.5

    def page(seed):
        return boxes_of(browse_dataset(cfg, tmp_path / 'page.html', seed=seed).read_text())

    first = page(0)
    assert page(0) == first
    assert any(page(seed) != first for seed in range(1, 9))


def test_an_image_that_cannot_be_read(cfg, tmp_path):
    (tmp_path / '1.png').write_bytes(b'no image')
    content = browse_dataset(cfg, tmp_path / 'page.html', num=1).read_text()
    assert '1.png' in content[content.index('aria-label="Warnings"') : content.index('<section')]
    assert [caption[:5] for caption, _ in boxes_of(content)] == ['2.png']  # which stands in for it


def test_wrong_arguments(cfg, tmp_path):
    with pytest.raises(ConfigError, match='no test_dataloader'):
        browse_dataset(cfg, tmp_path / 'out/page.html', split='test')
    for num in (0, 301):
        with pytest.raises(ConfigError, match='expected at least 1, and at most 300'):
            browse_dataset(cfg, tmp_path / 'out/page.html', num=num)
    assert not (tmp_path / 'out').exists()


def test_in_a_browser(cfg, tmp_path, browser):
    page = browse_dataset(cfg, tmp_path / 'page.html')
    browser.check(page)
    browser.open(page)
    assert (browser.count('figure[data-filtered]'), browser.count('.mark')) == (6, 6)
    top = browser.run("return [...document.querySelectorAll('figure')].slice(0, 3).map(f => f.offsetTop)")
    assert top[0] == top[1] < top[2]  # two in a row
    browser.open(page, width=390)
    top = browser.run("return [...document.querySelectorAll('figure')].slice(0, 2).map(f => f.offsetTop)")
    assert top[0] < top[1]


def test_filter_by_class(cfg, tmp_path, browser):
    browser.open(browse_dataset(cfg, tmp_path / 'page.html'))
    browser.find('input[value=cat]').click()  # the first image keeps its crowd, the third has no box
    assert (browser.count('figure[data-filtered]'), browser.count('.mark')) == (4, 4)
    browser.find('input[value="d<b>og"]').click()
    assert browser.count('figure[data-filtered]') == 0
    browser.find('input[value=cat]').click()
    assert (browser.count('figure[data-filtered]'), browser.count('.mark')) == (2, 2)
