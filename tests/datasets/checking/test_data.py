"""A data set with one of everything wrong: each is found, and nothing else."""

import json
import os
import signal

import pytest
from mmengine.config import Config

from frdet.datasets.checking import check_data
from frdet.datasets.checking.findings import ERRORS, NOTES, Findings
from frdet.errors import ConfigError, DataError
from tests.engine import toy  # noqa: F401  registers ToyDataset

IN_ANNOTATIONS = {
    'wrong image record': (1, ("images[12] (id 90) has height '20': expected a positive number of pixels",)),
    'wrong category record': (1, ("categories[2] (id 'x') has id 'x': expected an integer of 64 bits",)),
    'wrong annotation': (
        2,
        (
            'annotations[7] (id 107) has bbox [1, 2, 3]: expected four finite numbers, [x, y, width, height] in pixels',
            "annotations[11] is 'no object': expected an object with image_id, category_id, bbox",
        ),
    ),
    'repeated image id': (1, ("images[11] (id 1): 'twice.jpg'",)),
    'repeated category': (1, ("categories[1] (id 2): 'a'",)),
    'repeated annotation id': (1, ('annotations[8] (id 100)',)),
    'annotation of no image': (1, ('annotations[9] (id 109): image_id 77',)),
    'annotation of no category': (1, ('annotations[10] (id 110): category_id 8',)),
    'box not finite': (
        1,
        (
            'annotations[3] (id 103) has bbox [1, 2, nan, 5]: expected four finite numbers, '
            '[x, y, width, height] in pixels',
        ),
    ),
    'box of negative size': (1, ('annotations[2] (id 102): bbox [1, 2, 10, -5] in image 1 of 30x20',)),
    'box outside its image': (1, ('annotations[4] (id 104): bbox [31, 2, 4, 4] in image 1 of 30x20',)),
    'box without area': (1, ('annotations[1] (id 101): bbox [1, 2, 0, 5] in image 1 of 30x20',)),
    'box leaves its image': (1, ('annotations[5] (id 105): bbox [25, 2, 7, 5] in image 1 of 30x20',)),
    'missing image': (1, ("'missing.jpg' (id 2)",)),
}
IN_IMAGES = {
    'undecodable image': 2,
    'image of another size': 1,
    'image turned by EXIF': (1, ("'turned.jpg' (id 6)",)),
    'grey image': (2, ("'grey.jpg' (id 7)", "'grey16.png' (id 10)")),
    'CMYK image': (1, ("'cmyk.jpg' (id 8)",)),
    'palette image': (1, ("'palette.png' (id 9)",)),
    '16-bit image': (1, ("'grey16.png' (id 10)",)),
    'image with transparency': (1, ("'alpha.png' (id 11)",)),
}


def config(root, **dataset):
    leaf = dict(type='CocoDataset', data_root=str(root), ann_file='ann.json', data_prefix=dict(img='images'), **dataset)
    return Config(dict(train_dataloader=dict(dataset=leaf), val_dataloader=dict(dataset=leaf)))


def test_everything_wrong_with_annotations(broken_root):
    (report,) = check_data(config(broken_root))
    assert report.splits == ('train', 'val')
    assert report.counts == '13 images, 12 annotations, 3 categories'
    assert dict(report.findings) == IN_ANNOTATIONS
    assert report.findings.has_errors


@pytest.mark.parametrize('workers', [1, 2, None])
def test_everything_wrong_with_images(broken_root, workers):
    (report,) = check_data(config(broken_root), images=True, workers=workers)
    found = {kind: finding for kind, finding in report.findings.items() if kind not in IN_ANNOTATIONS}
    count, (text, cut) = found['undecodable image']
    assert text.startswith("'text.jpg' (id 3) cannot be decoded") and cut.startswith("'cut.png' (id 4) cannot")
    (size,) = found['image of another size'].examples
    assert size.startswith("'size.jpg' (id 5) is 30x20, its annotation says 20x30 (width x height)")
    assert {**found, 'undecodable image': count, 'image of another size': 1} == IN_IMAGES


def test_every_kind_is_tested(broken_root):
    assert {*IN_ANNOTATIONS, *IN_IMAGES, 'most boxes leave their images', 'unreadable annotation file'} == {
        *ERRORS,
        *NOTES,
    }


def test_boxes_given_as_corners(tmp_path):
    """Twelve boxes in the right half of an image of 100, as x1 y1 x2 y2: read as xywh, each ends beyond 100."""
    (tmp_path / 'images').mkdir()
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'width': 100, 'height': 100}],
        'annotations': [{'image_id': 1, 'category_id': 1, 'bbox': [60, 60, 70 + i, 90]} for i in range(12)],
        'categories': [{'id': 1, 'name': 'a'}],
    }
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    (report,) = check_data(config(tmp_path))
    assert report.findings['most boxes leave their images'] == (1, ('12 of 12',))


def test_a_file_that_cannot_be_read_does_not_hide_the_next(broken_root):
    cfg = config(broken_root)
    cfg.train_dataloader.dataset.ann_file = 'none.json'
    first, second = check_data(cfg)
    assert first.findings['unreadable annotation file'].examples[0].startswith(f'{broken_root}/none.json cannot be')
    assert dict(second.findings) == IN_ANNOTATIONS


def test_data_sets_in_wrappers_are_read_once(broken_root):
    cfg = config(broken_root)
    leaf = cfg.val_dataloader.dataset
    inner = dict(type='ConcatDataset', datasets=[leaf, {**leaf, 'test_mode': True}])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    assert [report.splits for report in check_data(cfg)] == [('train', 'val')]


def test_nothing_to_check(broken_root):
    with pytest.raises(ConfigError, match='no data loader'):
        check_data(Config())
    with pytest.raises(ConfigError, match='has a ToyDataset: only a CocoDataset'):
        check_data(Config(dict(val_dataloader=dict(dataset=dict(type='ToyDataset')))))
    with pytest.raises(ConfigError, match='0 workers'):
        check_data(config(broken_root), workers=0)


def test_a_killed_process_is_an_error(broken_root, monkeypatch):
    monkeypatch.setattr(
        'frdet.datasets.checking.images.read_image', lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(DataError, match='A process that read images was killed'):
        check_data(config(broken_root), images=True, workers=2)


def test_the_table_shows_three_examples():
    findings = Findings()
    for number in range(5):
        findings.add('grey image', f'image {number}')
    assert not findings.has_errors
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in findings.table().splitlines() if '|' in line]
    assert rows == [
        ['', 'found', 'count', 'consequence', 'first'],
        ['note', 'grey image', '5', 'read as colour', 'image 0'],
        ['', '', '', '', 'image 1'],
        ['', '', '', '', 'image 2'],
    ]
