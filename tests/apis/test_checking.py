"""All that is wrong with data is found, and nothing else; and what stops or skews a run has a line in the check."""

import json
import os
import signal
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from frdet.apis.checking import check_data
from frdet.config import load_config
from frdet.datasets.checking import ERRORS, NOTES, Findings
from frdet.engine.hooks.check_setup import compare_classes
from frdet.errors import ConfigError, DataError, UserError
from frdet.evaluation import CocoMetric
from frdet.registry import DATASETS
from tests.broken_data import FILES, broken_coco
from tests.engine import toy  # noqa: F401  registers ToyDataset
from tests.evaluation.test_truth import CLASSES, evaluated, perfect

IN_ANNOTATIONS = {
    'wrong image record': (1, ("images[12] (id 90) has height '20': expected a positive number of pixels",)),
    'wrong category record': (1, ('categories[2] (id None) has id None: expected an integer or a text',)),
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
    'repeated box': (1, ('annotations[8] (id 100): bbox [1, 2, 10, 5] in image 1',)),
    'image that is hardly to be seen': (1, ("'grey16.png' (id 10): 3x2",)),
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
    'repeated image': (1, ("'size.jpg' (id 5) is the same picture as 'good.jpg' (id 1)",)),
}


def config(root, **dataset):
    leaf = dict(type='CocoDataset', data_root=str(root), ann_file='ann.json', data_prefix=dict(img='images'), **dataset)
    return Config(dict(val_dataloader=dict(dataset=leaf), test_dataloader=dict(dataset=leaf)))


@pytest.fixture
def broken_root(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for name, content, _ in FILES.values():
        if content is not None:
            (folder / name).write_bytes(content)
    (tmp_path / 'ann.json').write_text(json.dumps(broken_coco()))
    return tmp_path


def test_everything_wrong_with_annotations(broken_root):
    (report,) = check_data(config(broken_root))
    assert report.splits == ('val', 'test')
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
    cfg.val_dataloader.dataset.ann_file = 'none.json'
    first, second = check_data(cfg)
    assert first.findings['unreadable annotation file'].examples[0].startswith(f'{broken_root}/none.json cannot be')
    assert dict(second.findings) == IN_ANNOTATIONS


def test_data_sets_in_wrappers_are_read_once(broken_root):
    cfg = config(broken_root)
    leaf = cfg.val_dataloader.dataset
    inner = dict(type='ConcatDataset', datasets=[leaf, {**leaf, 'test_mode': True}])
    cfg.test_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=inner)
    assert [report.splits for report in check_data(cfg)] == [('val', 'test')]


def test_nothing_to_check(broken_root):
    with pytest.raises(ConfigError, match='no data loader'):
        check_data(Config())
    with pytest.raises(ConfigError, match='has a ToyDataset: only a DetDataset'):
        check_data(Config(dict(val_dataloader=dict(dataset=dict(type='ToyDataset')))))
    with pytest.raises(ConfigError, match='0 workers'):
        check_data(config(broken_root), workers=0)


def test_a_killed_process_is_an_error(broken_root, monkeypatch):
    monkeypatch.setattr(
        'frdet.datasets.checking.images.read_image', lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(DataError, match='A process that reads images was killed'):
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


def right():
    """Two small data sets in which nothing is wrong: content of the annotation file of each split, by its name."""

    def split(first, count):
        images = [dict(id=first + k, file_name=f'{first + k}.png', width=100, height=80) for k in range(count)]
        annotations = [
            dict(id=2 * image['id'] + label, image_id=image['id'], category_id=label + 1, bbox=[20 * label, k, 30, 40])
            for k, image in enumerate(images)
            for label in (0, 1)
        ]
        categories = [dict(id=label + 1, name=name) for label, name in enumerate(CLASSES)]
        return dict(images=images, annotations=annotations, categories=categories)

    return dict(train=split(1, 10), val=split(11, 3))


def write_right(root, contents):
    for name, content in contents.items():
        (root / name).mkdir()
        (root / f'{name}.json').write_text(json.dumps(content))
        for image in content['images']:
            pixels = np.random.default_rng(crc32(image['file_name'].encode())).integers(0, 255, (80, 100, 3))
            if '/' not in image['file_name']:
                Image.fromarray(pixels.astype(np.uint8)).save(root / name / image['file_name'])


def config_of(root, **classes):
    steps = [dict(type='LoadImage'), dict(type='ResizeShortestEdge', short_side=64, max_size=128)]
    steps += [dict(type='FilterBoxes'), dict(type='PackDetInputs')]

    def loader(name, **kwargs):
        data = dict(data_root=str(root), ann_file=f'{name}.json', data_prefix=dict(img=name), pipeline=steps)
        return dict(dataset=dict(type='CocoDataset', **data, **kwargs))

    return Config(
        dict(
            train_dataloader=loader('train', filter_cfg=dict(filter_empty_gt=True)),
            val_dataloader=loader('val', test_mode=True),
            val_evaluator=dict(type='CocoMetric'),
        )
    )


def run(cfg):
    """What training and validation do with the data. Boxes that are trained on, and AP of detections equal to them.

    Raises:
        UserError: what would stop the run.
    """
    train, val = (DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in ('train', 'val'))
    compare_classes(train.metainfo['classes'], 'train_dataloader', val, 'val_dataloader')
    samples = perfect(val)
    metric = CocoMetric(**{k: v for k, v in cfg.val_evaluator.items() if k != 'type'}, classwise=False)
    metric.use_dataset(val)
    for k in range(len(val)):
        assert val[k]['data_samples'].img_id == samples[k]['img_id']
    boxes = 0
    for k in range(len(train)):
        sample = train[k]['data_samples']
        if 'broken_images' in sample:
            raise DataError(sample.broken_images[0])
        boxes += len(sample.gt_instances)
    figures = evaluated(metric, val, samples)
    return boxes, round(figures.get('coco/bbox_mAP', -1), 6), round(figures.get('coco/bbox_mAP_m', -1), 6)


#: The 20 boxes of 30 x 40 pixels in training; AP 1 for the 6 in validation, all of medium size.
RIGHT = (20, 1.0, 1.0)
S, V = ('train', 'val'), ('val',)


def each(section, **change):
    def mutate(content):
        for item in content[section]:
            item.update(change)

    return mutate


def first(section, **change):
    return lambda content: content[section][0].update(change)


def drop(section, key):
    return lambda content: content[section][0].pop(key)


def again(section, **change):
    return lambda content: content[section].append({**content[section][0], **change})


def fractions(content):
    for item in content['annotations']:
        x, y, w, h = item['bbox']
        item['bbox'] = [x / 100, y / 80, w / 100, h / 80]


def lack(content):
    content['categories'].pop()
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] == 1]


def more(content):
    content['categories'].append(dict(id=3, name='cow'))


def turned_ids(content):
    content['categories'] = [dict(id=1, name='dog'), dict(id=2, name='cat')]


def nine(content):
    content['annotations'] = content['annotations'][:-2]


def without(content):
    content['annotations'] = []


#: What is wrong -> how the annotation files of which splits are changed, and what the check calls it.
WRONG = {
    'no id': (first('images', id=None), S, 'wrong image record'),
    'repeated image id': (again('images', file_name='x.png'), S, 'repeated image id'),
    'image listed twice': (again('images', id=900), S, 'repeated image'),
    'size as text': (first('images', width='100'), S, 'wrong image record'),
    'another size': (first('images', width=90), S, 'image of another size'),
    'no file': (first('images', file_name='gone/a.png'), S, 'missing image'),
    'category without a name': (drop('categories', 'name'), S, 'wrong category record'),
    'repeated category': (again('categories'), S, 'repeated category'),
    'no image of that id': (first('annotations', image_id='1'), S, 'annotation of no image'),
    'no category of that id': (first('annotations', category_id=77), S, 'annotation of no category'),
    'three numbers': (first('annotations', bbox=[1, 2, 3]), S, 'wrong annotation'),
    'box not finite': (first('annotations', bbox=[1, 2, 3, float('nan')]), S, 'box not finite'),
    'negative box': (first('annotations', bbox=[50, 50, -30, -40]), S, 'box of negative size'),
    'box outside': (first('annotations', bbox=[200, 5, 30, 40]), S, 'box outside its image'),
    'box of no area': (first('annotations', bbox=[2, 5, 0, 40]), S, 'box without area'),
    'boxes of 0 to 1': (fractions, S, 'boxes of 0 to 1'),
    'crowd as text': (first('annotations', iscrowd='0'), S, 'wrong annotation'),
    'area as text': (first('annotations', area='9'), S, 'wrong annotation'),
    'area 0': (each('annotations', area=0), S, 'area that is not positive'),
    'area -1': (each('annotations', area=-1), S, 'area that is not positive'),
    'area in another unit': (each('annotations', area=1.5), S, 'areas unlike their boxes'),
    'ignored': (first('annotations', ignore=1), S, 'ignored box'),
    'all ignored': (each('annotations', ignore=1), V, 'nothing to evaluate'),
    'all crowds': (each('annotations', iscrowd=1), V, 'nothing to evaluate'),
    'no object in training': (without, ('train',), 'data set refused'),
    'repeated box': (again('annotations', id=900), S, 'repeated box'),
    'another class on the same box': (again('annotations', id=900, category_id=2), S, 'two classes on one box'),
    'nine boxes of a class': (nine, ('train',), 'class with few boxes'),
    'no object': (without, V, 'nothing to evaluate'),
    'a split lacks a class': (lack, V, 'classes refused'),
    'a split has a class more': (more, V, 'classes refused'),
    'classes in another order': (turned_ids, V, 'classes refused'),
    'class without a box': (more, S, 'class without a box'),
    'thin image': (first('images', width=2000, height=20), S, 'image that is hardly to be seen'),
}


def check(cfg, **kwargs):
    """Kinds of findings, and whether the tool would end with an error."""
    reports = check_data(cfg, workers=1, **kwargs)
    return {kind for report in reports for kind in report.findings}, any(r.findings.has_errors for r in reports)


def held_together(cfg, kind, **kwargs):
    """The check names ``kind``; it is an error if the run stops, and says "stops" of nothing that does not stop it."""
    found, is_error = check(cfg, images=True, **kwargs)
    assert kind in found
    try:
        run(cfg)
    except UserError:
        assert is_error, found
    else:
        assert not [name for name in found if ERRORS.get(name) == 'stops']


@pytest.mark.parametrize('name', WRONG)
def test_what_stops_or_skews_a_run_has_a_line(tmp_path, name):
    mutate, splits, kind = WRONG[name]
    contents = right()
    for split in splits:
        mutate(contents[split])
    write_right(tmp_path, contents)
    held_together(config_of(tmp_path), kind)


def test_nothing_is_found_in_what_is_right(tmp_path):
    write_right(tmp_path, right())
    cfg = config_of(tmp_path)
    assert run(cfg) == RIGHT
    assert check(cfg, images=True) == (set(), False)


LOOKS_WRONG = [each('annotations', id=0), each('annotations', area=None), each('images', width=100.0)]


@pytest.mark.parametrize('change', LOOKS_WRONG)
def test_what_only_looks_wrong(tmp_path, change):
    contents = right()
    change(contents['val'])
    write_right(tmp_path, contents)
    cfg = config_of(tmp_path)
    assert run(cfg) == RIGHT
    assert not check(cfg)[1]


SAME = dict(ann_file='train.json', data_prefix=dict(img='train'))
SETTINGS = {
    'unknown class': ({'train_dataloader.dataset.metainfo': dict(classes=['catt', 'dog'])}, 'data set refused'),
    'other evaluator': ({'val_evaluator.ann_file': 'train.json'}, 'evaluation refused'),
    'no such evaluator': ({'val_evaluator.ann_file': 'none.json'}, 'evaluation refused'),
    'the same images': ({'val_dataloader.dataset': SAME}, 'image in two splits'),
    'small images dropped': ({'train_dataloader.dataset.filter_cfg': dict(min_size=90)}, 'data set refused'),
    'no folder': ({'val_dataloader.dataset.data_prefix': dict(img='none')}, 'missing image'),
}  # fmt: skip


@pytest.mark.parametrize('name', SETTINGS)
def test_settings_that_do_not_fit_the_data(tmp_path, name):
    changes, kind = SETTINGS[name]
    write_right(tmp_path, right())
    cfg = config_of(tmp_path)
    cfg.merge_from_dict({k: str(tmp_path / v) if k.endswith('evaluator.ann_file') else v for k, v in changes.items()})
    held_together(cfg, kind)


def test_some_images_dropped(tmp_path):
    contents = right()
    contents['train']['annotations'] = contents['train']['annotations'][:-2]
    write_right(tmp_path, contents)
    assert 'image left out of training' in check(config_of(tmp_path))[0]


def test_a_picture_in_two_splits_under_another_name(tmp_path):
    """By its bytes, with and without reading all images; twice in one split if all are read."""
    contents = right()
    write_right(tmp_path, contents)
    picture = (tmp_path / 'train' / '1.png').read_bytes()
    (tmp_path / 'val' / '12.png').write_bytes(picture)
    for images in (False, True):
        reports = check_data(config_of(tmp_path), images=images, workers=1)
        expected = "'12.png' (id 12) of val is '1.png' (id 1) of train"
        assert reports[-1].findings['image in two splits'] == (1, (expected,))
    (tmp_path / 'train' / '3.png').write_bytes(picture)
    found, is_error = check(config_of(tmp_path), images=True)
    assert found == {'image in two splits', 'repeated image'} and not is_error


def tiny_model(num_classes):
    model = load_config(Path(__file__).parents[2] / 'configs/quickstart/r18_fpn_shapes.py').model
    model.roi_head.bbox_head.num_classes = num_classes
    return model


def test_the_number_of_classes(tmp_path):
    write_right(tmp_path, right())
    cfg = config_of(tmp_path)
    cfg.model = tiny_model(num_classes=3)
    found, is_error = check(cfg)
    assert (found, is_error) == ({'classes refused'}, True)
    for count in (2, None):
        cfg.model = tiny_model(num_classes=count)
        assert check(cfg) == (set(), False)


def test_every_kind_is_tested():
    elsewhere = {'most boxes leave their images', 'unreadable annotation file', 'image left out of training'}
    elsewhere |= {'said by the evaluator', 'image in two splits', 'object too small for the network'}
    in_checking = {'category left out', 'box of unusual size', 'box of unusual shape', 'file name written otherwise'}
    elsewhere |= in_checking | {'near-duplicate image', 'near-duplicate in two splits'}
    of_masks = {'object without a mask', 'mask without area', 'box unlike its mask'}  # datasets/test_coco_masks.py
    elsewhere |= of_masks
    tested = {*IN_ANNOTATIONS, *IN_IMAGES, *(kind for *_, kind in (*WRONG.values(), *SETTINGS.values()))}
    assert tested | elsewhere == {*ERRORS, *NOTES}


def test_the_page_explains_every_kind():
    """In docs/analysis.md errors and notes have a table each, in the order of their harm."""
    page = (Path(__file__).parents[2] / 'docs/analysis.md').read_text().partition('## Mistakes in data')[2]
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in page.splitlines() if line.startswith('| ')]
    named = [kind for found, *_ in rows if found != 'found' for kind in found.split(', ')]
    assert named == [*ERRORS, *NOTES]


def test_the_place_before_still_works():
    with pytest.warns(FutureWarning, match=r'check_data is frdet\.apis\.checking\.check_data now'):
        from frdet.datasets.checking import check_data as moved
    assert moved is check_data


def test_objects_that_are_too_small_after_resizing(tmp_path):
    """The shorter side of 80 pixels becomes 64: 5 pixels become 4, 4 become 3.2. A cell of the finest level has 4."""
    contents = right()
    for place, size in enumerate([(5, 30), (4, 30), (30, 4)]):
        contents['val']['annotations'][2 * place]['bbox'] = [1, 2, *size]
    write_right(tmp_path, contents)
    cfg = config_of(tmp_path)
    assert len(check_data(cfg)) == 2
    cfg.model = tiny_model(num_classes=2)
    *_, together = check_data(cfg)
    end = 'pixels, a cell has 4'
    examples = (
        f"val_dataloader: 'cat' in 12.png gets 3.2x24.0 {end}",
        f"val_dataloader: 'cat' in 13.png gets 24.0x3.2 {end}",
    )
    assert together.findings == {'object too small for the network': (2, examples)}


def test_a_divided_data_set_is_checked_once(tmp_path, monkeypatch):
    """One report of the file. A picture that was saved again under another name stays on the side of the first."""
    monkeypatch.setenv('FRDET_CACHE', str(tmp_path / 'cache'))
    contents = right()
    contents['train']['images'][1]['file_name'] = '2.jpg'
    write_right(tmp_path, contents)
    Image.open(tmp_path / 'train/1.png').save(tmp_path / 'train/2.jpg', quality=95)
    data = dict(data_root=str(tmp_path), ann_file='train.json', data_prefix=dict(img='train'))
    loaders = {
        f'{part}_dataloader': dict(dataset=dict(type='CocoDataset', part=part, split=dict(val=0.3), **data))
        for part in ('train', 'val')
    }
    first, together = check_data(Config(loaders), images=True, workers=1)
    assert (first.splits, first.counts) == (('train', 'val'), '10 images, 20 annotations, 2 categories')
    assert first.boxes == {'cat': 10, 'dog': 10}
    assert set(first.findings) == {'near-duplicate image'}
    assert set(together.findings) == {'class with few boxes'}


def test_the_reports_say_what_is_there(tmp_path):
    write_right(tmp_path, right())
    train, val = map(str, check_data(config_of(tmp_path)))
    assert train.splitlines() == [
        f'{tmp_path}/train.json (train): 10 images, 20 annotations, 2 categories; images in {tmp_path}/train',
        'Boxes: cat 10, dog 10',
        'Nothing to report',
    ]
    assert val.splitlines()[1] == 'Boxes: cat 3, dog 3'
