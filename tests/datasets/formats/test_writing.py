"""Converting: what a round trip keeps, on photographs and on drawn cases, and what is refused."""

import json
import os

import numpy as np
import pytest
from pycocotools.coco import COCO

from frdet.datasets.coco import read_coco
from frdet.datasets.formats.recognising import recognise
from frdet.datasets.formats.writing import convert
from frdet.errors import DataError
from frdet.registry import DATASETS
from tests.datasets.formats.conftest import Folder

NAMED = 5  # photographs of each split


@pytest.fixture(scope='module')
def photos(coco_root, tmp_path_factory):
    """The first images of the real data set in its own layout."""
    root = tmp_path_factory.mktemp('photos')
    (root / 'annotations').mkdir()
    for split, ann_file, folder in (
        ('train', coco_root.train_ann, coco_root.train_dir),
        ('val', coco_root.val_ann, coco_root.val_dir),
    ):
        content = json.loads((coco_root.root / ann_file).read_text())
        content['images'] = content['images'][:NAMED]
        ids = {image['id'] for image in content['images']}
        content['annotations'] = [item for item in content['annotations'] if item['image_id'] in ids]
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))
        (root / split).mkdir()
        for image in content['images']:
            (root / split / image['file_name']).symlink_to(folder / image['file_name'])
    return root


def rows(path, flags=('crowd', 'ignored'), cut=False):
    """For each split the images, and each box with its image, class and flags, sorted."""
    found = recognise(path)
    result = {}
    for split, args in found.parts.items():
        content = DATASETS.build(dict(type=found.reader, data_root=found.root, **args, lazy_init=True)).annotations()
        names = [os.path.basename(image['file_name']) for image in content.images]
        sizes = [(image['width'], image['height']) for image in content.images]
        corners = content.xywh + np.pad(content.xywh[:, :2], ((0, 0), (2, 0)))
        if cut:
            limit = np.array(sizes)[content.image_index]
            corners = corners.reshape(-1, 2, 2).clip(0, limit[:, None]).reshape(-1, 4)
        classes = list(content.categories)
        out = np.logical_or.reduce([getattr(content, flag) for flag in flags]) if flags else [False] * len(corners)
        table = zip(content.image_index, content.category_index, corners.round(2).tolist(), out, strict=True)
        boxes = sorted((names[i], classes[c], box, bool(flag)) for i, c, box, flag in table)
        result[split] = (sorted(zip(names, sizes, strict=True)), boxes)
    return result


def test_coco_voc_coco(photos, tmp_path):
    """Crowds become difficult, boxes are cut to their images; numbers are the same."""
    convert(photos, tmp_path / 'voc', 'voc')
    convert(tmp_path / 'voc', tmp_path / 'coco', 'coco')
    expected = rows(photos, cut=True)
    assert rows(tmp_path / 'voc') == rows(tmp_path / 'coco') == expected
    assert set(expected) == {'train', 'val'} and all(len(boxes) > 5 for _, boxes in expected.values())


def test_coco_yolo_coco(photos, tmp_path):
    said = convert(photos, tmp_path / 'yolo', 'yolo', link=True)
    convert(tmp_path / 'yolo', tmp_path / 'coco', 'coco')
    whole = rows(photos, cut=True)
    expected = {split: (images, [box for box in boxes if not box[3]]) for split, (images, boxes) in whole.items()}
    assert rows(tmp_path / 'yolo') == rows(tmp_path / 'coco') == expected
    left_out = sum(len(boxes) for _, boxes in whole.values()) - sum(len(boxes) for _, boxes in expected.values())
    assert sum(int(line.split()[1]) for line in said if 'crowds and ignored' in line) == left_out


def test_coco_coco(photos, tmp_path):
    """Ids, areas and crowds stay, too."""
    convert(photos, tmp_path / 'coco', 'coco')
    for split in ('train', 'val'):
        before, after = (
            read_coco(root / f'annotations/instances_{split}.json') for root in (photos, tmp_path / 'coco')
        )
        assert (before.images, before.categories) == (after.images, after.categories)
        np.testing.assert_allclose(before.xywh, after.xywh, atol=5e-4)
        np.testing.assert_allclose(before.area, after.area, atol=5e-4)
        np.testing.assert_array_equal(before.crowd, after.crowd)


@pytest.fixture
def small(tmp_path):
    """Two splits with images of the same names; the second lacks a class and has one that the first lacks."""
    folder = Folder(tmp_path / 'source')
    for split, kinds in (('train', ('cat', '图 & "dog"')), ('val', ('ant', 'cat'))):
        lines = [f'{split}/{"ab"[k]}.jpg,8,6,40.125,{30 + k},{kind}' for k, kind in enumerate(kinds)]
        folder.write(f'{split}.csv', '\n'.join([*lines, f'{split}/c.jpg,,,,,', f'{split}/b.jpg,90,6,95,9,cat']))
        folder.draw(*(f'{split}/{name}.jpg' for name in 'abc'))
    return folder


@pytest.mark.parametrize('to', ['coco', 'voc', 'yolo'])
def test_splits_classes_and_negatives(small, tmp_path, to):
    target = tmp_path / 'out'
    said = convert(small.root, target, to)
    read = rows(target)
    classes = ['ant', 'cat', '图 & "dog"']
    for split, first in (('train', ('a.jpg', 'cat')), ('val', ('a.jpg', 'ant'))):
        images, boxes = read[split]
        assert [name for name, _ in images] == ['a.jpg', 'b.jpg', 'c.jpg']
        assert (boxes[0][:2], boxes[0][2]) == (first, [8, 6, 40.12, 30]) or boxes[0][2] == [8, 6, 40.13, 30]
        # The box beyond the image of 80 pixels has nothing to learn: only COCO's file can have it.
        assert len(boxes) == (3 if to == 'coco' else 2)
    assert said[0] == f'{small.root}: CSV' and 'train: 3 images, 3 boxes' in said
    assert ('train: 1 boxes without an area in their image are left out' in said) == (to != 'coco')
    if to == 'yolo':
        assert sorted(recognise_classes(target)) == classes
        assert (target / 'labels/train/c.txt').read_text() == ''


def recognise_classes(path):
    found = recognise(path)
    args = next(iter(found.parts.values()))
    return DATASETS.build(dict(type=found.reader, data_root=found.root, **args)).metainfo['classes']


def test_pixels_of_voc(small, tmp_path):
    """8, 6 to 40.125, 30 in continuous pixels: the first pixel is 9, 7, and the last is counted to 40.125, 30."""
    convert(small.root, tmp_path / 'voc', 'voc')
    text = (tmp_path / 'voc/Annotations/train/a.xml').read_text()
    sides = '<xmin>9</xmin> <ymin>7</ymin> <xmax>40.125</xmax> <ymax>30</ymax>'
    assert sides in ' '.join(text.split())
    assert (tmp_path / 'voc/ImageSets/Main/val.txt').read_text() == 'val/a\nval/b\nval/c\n'


def test_images_of_equal_names(tmp_path):
    """The label file of a second ``a`` would replace that of the first."""
    source = Folder(tmp_path / 'source')
    source.draw('a.jpg', 'a.png')
    source.write('t.csv', 'a.jpg,1,2,9,9,cat\na.png,1,2,5,5,cat\n')
    convert(source.root, tmp_path / 'out', 'yolo')
    boxes = rows(tmp_path / 'out')['all'][1]
    assert boxes == [('a.jpg', 'cat', [1, 2, 9, 9], False), ('a_2.png', 'cat', [1, 2, 5, 5], False)]


def test_copies_and_links(small, tmp_path):
    convert(small.root, tmp_path / 'copied', 'coco')
    convert(small.root, tmp_path / 'linked', 'coco', link=True)
    copied, linked = (tmp_path / name / 'train/a.jpg' for name in ('copied', 'linked'))
    assert not copied.is_symlink() and linked.is_symlink()
    assert copied.read_bytes() == linked.read_bytes() == (small.root / 'train/a.jpg').read_bytes()


def test_an_image_that_is_missing(small, tmp_path):
    small.write('train.csv', 'filename,width,height,class,xmin,ymin,xmax,ymax\ntrain/gone.jpg,80,60,cat,1,2,9,9\n'
                             'train/a.jpg,80,60,cat,1,2,9,9\n')  # fmt: skip
    said = convert(small.root, tmp_path / 'out', 'voc')
    assert any(line.startswith('train: 1 images are not there and are left out: ') for line in said)
    assert [name for name, _ in rows(tmp_path / 'out')['train'][0]] == ['a.jpg']


def test_what_is_refused(small, tmp_path):
    for target in ('train', 'train.csv'):
        with pytest.raises(DataError, match=f'{target} exists: give a new folder'):
            convert(small.root, small.root / target, 'coco')
    with pytest.raises(DataError, match='new is inside .*source, which would then hold two formats'):
        convert(small.root, small.root / 'new', 'coco')
    small.draw('../plain/a.jpg')
    with pytest.raises(DataError, match='has images without labels: there is nothing to convert'):
        convert(tmp_path / 'plain', tmp_path / 'out', 'coco')


def test_nothing_is_left_of_a_write_that_fails(small, tmp_path, monkeypatch):
    """An empty folder that was there stays."""
    (tmp_path / 'new').mkdir(exist_ok=True)

    def full(source, target):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('shutil.copyfile', full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=r'new cannot be written \(No space left on device\)'):
        convert(small.root, tmp_path / 'new', 'voc')
    assert sorted(tmp_path.iterdir()) == before and not list((tmp_path / 'new').iterdir())
    monkeypatch.undo()
    convert(small.root, tmp_path / 'new', 'voc')
    assert (tmp_path / 'new/Annotations').is_dir()


def test_masks_stay_as_they_are(photos, tmp_path):
    """From COCO to COCO; run lengths are written as text, which pycocotools reads as the same pixels."""
    convert(photos, tmp_path / 'coco', 'coco')
    for split in ('train', 'val'):
        before, after = (COCO(root / f'annotations/instances_{split}.json') for root in (photos, tmp_path / 'coco'))
        assert len(before.anns) == len(after.anns) > 5
        ids = {one['file_name']: one['id'] for one in after.imgs.values()}
        for old in before.anns.values():
            there = after.imgToAnns[ids[before.imgs[old['image_id']]['file_name']]]
            (new,) = [one for one in there if one['id'] == after_id(before, old)]
            if isinstance(old['segmentation'], list):
                assert new['segmentation'] == old['segmentation']
            else:
                assert np.array_equal(after.annToMask(new), before.annToMask(old))


def after_id(before, annotation):
    """Annotations are numbered from 1 in the order of the file."""
    return list(before.anns).index(annotation['id']) + 1
