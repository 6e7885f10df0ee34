"""YOLO's text: units, polygons, negatives, the layouts of Ultralytics, Roboflow and Darknet, and what is refused."""

import re

import numpy as np
import pytest
from PIL import Image

from frdet.datasets import YoloDataset
from frdet.errors import DataError

YAML = 'train: images/train\nval: images/val\nnames: [cat, dog]\n'


def parts(folder, **files):
    """Images and labels of two splits: ``train/a`` with the given lines, ``val/b`` with one box."""
    for name, lines in {'train/a': '0 0.5 0.5 0.25 0.5\n', 'val/b': '1 0.5 0.5 0.1 0.1\n', **files}.items():
        folder.draw(f'images/{name}.jpg')
        if lines is not None:
            folder.write(f'labels/{name}.txt', lines)


def test_boxes_polygons_and_negatives(folder):
    """In an image of 80 x 60 pixels."""
    lines = '0 0.5 0.5 0.25 0.5\n\n1 0.1 0.2 0.3 0.2 0.3 0.6\n1.0 1e-1 0.5 0.1 0.2'
    parts(folder, **{'train/a': lines, 'train/empty': '', 'train/none': None})
    folder.write('data.yaml', YAML)
    content, notes = folder.read(YoloDataset, 'data.yaml', part='train')
    # 0.25 * 80 = 20 around 40, 0.5 * 60 = 30 around 30; the polygon from 8, 12 to 24, 36; 8 x 12 around 8, 30
    expected = [[30, 15, 50, 45], [8, 12, 24, 36], [4, 24, 12, 36]]
    np.testing.assert_allclose(content.boxes, expected, atol=1e-5)
    assert (content.categories, content.category_index.tolist()) == ({'cat': 0, 'dog': 1}, [0, 1, 1])
    assert content.image_index.tolist() == [0, 0, 0] and notes == []
    assert [image['id'] for image in content.images] == [f'images/train/{name}.jpg' for name in ('a', 'empty', 'none')]
    assert len(folder.read(YoloDataset, 'data.yaml')[0].images) == 4


def test_fractions_are_of_the_upright_image(folder):
    """EXIF orientation 6 turns 80 x 60 pixels to 60 x 80."""
    parts(folder)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (80, 60)).save(folder.root / 'images/train/a.jpg', exif=exif)
    folder.write('data.yaml', YAML)
    content, _ = folder.read(YoloDataset, 'data.yaml', part='train')
    np.testing.assert_allclose(content.boxes, [[30 - 7.5, 40 - 20, 30 + 7.5, 40 + 20]])


YAMLS = {
    'names by number': 'train: images/train\nval: images/val\nnames: {1: dog, 0: cat}',
    'path': 'path: sets\ntrain: images/train\nval: images/val\nnames: [cat, dog]',
    'path of another machine': 'path: /gone\ntrain: images/train\nval: images/val\nnames: [cat, dog]',
    'roboflow': 'train: ../images/train\nval: ../images/val\nnames: [cat, dog]\nnc: 2',
    'lists': 'train: [images/train]\nval: val.txt\nnames: [cat, dog]',
    'darknet': None,
}


@pytest.mark.parametrize('text', YAMLS.values(), ids=YAMLS)
def test_layouts(folder, text):
    parts(folder)
    name = 'data.yaml'
    if text is None:
        name, text = 'obj.data', 'classes = 2\ntrain  = data/train.txt\nvalid = val.txt\nnames = data/obj.names\n'
        folder.write('train.txt', 'data/images/train/a.jpg\n')
        folder.write('obj.names', 'cat\ndog\n')
    if 'path: sets' in text:
        (folder.root / 'sets').symlink_to('.')
    folder.write('val.txt', './images/val/b.jpg\n')
    folder.write(name, text)
    for part, label in (('train', 0), ('val', 1)):
        content, _ = folder.read(YoloDataset, name, part=part)
        assert (list(content.categories), content.category_index.tolist()) == (['cat', 'dog'], [label])


@pytest.mark.parametrize('labels', ['labels', '.'])
def test_a_folder_of_labels(folder, labels):
    """Or labels beside the images, as LabelImg writes them."""
    images = 'images' if labels == 'labels' else '.'
    for name in ('a', 'sub/b'):
        folder.draw(f'{images}/{name}.jpg')
        folder.write(f'{labels}/{name}.txt', '1 0.5 0.5 0.5 0.5')
    with pytest.raises(DataError, match=r'it names no classes: add names to it, or classes\.txt'):
        folder.read(YoloDataset, labels, images)
    content, _ = folder.read(YoloDataset, labels, images, metainfo=dict(classes=['cat', 'dog']))
    assert len(content.boxes) == 2
    folder.write(f'{labels}/classes.txt', 'bird\nfish\n')
    content, _ = folder.read(YoloDataset, labels, images)
    assert (list(content.categories), content.category_index.tolist()) == (['bird', 'fish'], [1, 1])


def test_keypoints_are_no_polygon(folder):
    parts(folder, **{'train/a': '0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.9 0.9 1'})
    folder.write('data.yaml', f'{YAML}kpt_shape: [2, 3]')
    content, _ = folder.read(YoloDataset, 'data.yaml', part='train')
    np.testing.assert_allclose(content.boxes, [[30, 15, 50, 45]])


def test_a_broken_image(folder):
    """Its size is not known: it is left out in training, and refused in testing."""
    parts(folder, **{'train/c': '0 0.5 0.5 0.25 0.5'})
    folder.write('images/train/a.jpg', 'no image')
    folder.write('data.yaml', YAML)
    content, notes = folder.read(YoloDataset, 'data.yaml', part='train')
    assert [image['id'] for image in content.images] == ['images/train/c.jpg'] and len(content.boxes) == 1
    assert 'images/train/a.jpg. They are left out' in notes[0]
    with pytest.raises(DataError, match='1 of 2 images have no size'):
        folder.read(YoloDataset, 'data.yaml', part='train', test_mode=True)


LINES = {
    'confidence': ('0 0.5 0.5 0.1 0.1 0.9', 'a sixth number is the confidence of a detection'),
    'pixels': ('0 0.5 0.5 0.1 0.1\n0 40 30 20 30', r"a\.txt, line 2: '0 40 30 20 30': expected fractions of the image"),
    'no number': ('cat 0.5 0.5 0.1 0.1', "line 1: 'cat 0.5 0.5 0.1 0.1': expected numbers, class x y width height"),
    'infinite': ('0 0.5 0.5 inf 0.1', 'expected fractions'),
    'too few': ('0 0.5 0.5', 'expected class x y width height, or class and the points of a polygon'),
    'half a class': ('0.5 0.5 0.5 0.1 0.1', 'expected class x y width height'),
    'unknown class': ('2 0.5 0.5 0.1 0.1', 'labels have the class 2, and it names 2 classes from 0'),
    'no text': (b'\xff\xfe\x00\x80', 'is no text'),
}


@pytest.mark.parametrize(('lines', 'words'), LINES.values(), ids=LINES)
def test_lines_that_are_refused(folder, lines, words):
    parts(folder, **{'train/a': lines})
    folder.write('data.yaml', YAML)
    with pytest.raises(DataError, match=words):
        folder.read(YoloDataset, 'data.yaml', part='train')


FILES = {
    'code': ('train: !!python/object/apply:os.mkdir [sprung]', 'it has a Python object .*, which could run code'),
    'no YAML': ('train: [', 'it is no YAML'),
    'a list': ('- 1', r'it holds \[1\]: expected train, val and names'),
    'no train': ('names: [cat, dog]\ntest:', 'it has none of train, val and test'),
    'no folder': (YAML.replace('images/train', 'gone'), 'train is gone, which is not in .*: correct the path'),
    'out of the folder': (YAML.replace('images/train', '../../..'), r'train is \.\./\.\./\.\., which leads out of '),
    'no names': ('train: images/train', 'it names no classes'),
    'a name twice': ('train: images/train\nnames: [cat, cat]', 'expected a different name for each class'),
    'names of text': ('train: images/train\nnames: {a: cat}', 'expected a list of names, or names by number'),
    'a number of names': ('train: images/train\nnames: 3', 'names is 3: expected a list of names'),
    'a number': ('train: 3\nnames: [cat]', r'data\.yaml: train is 3: expected a folder, or a \.txt list of images'),
    'a list of nothing': (
        'train: list.txt\nnames: [cat]',
        r'2 of 3 images of .*list\.txt are not there: images/gone\.jpg, images/train/b\.jpg',
    ),
}


@pytest.mark.parametrize(('text', 'words'), FILES.values(), ids=FILES)
def test_files_that_are_refused(folder, text, words, monkeypatch):
    monkeypatch.chdir(folder.root)
    parts(folder)
    folder.write('list.txt', 'images/gone.jpg\nimages/train/a.jpg\nimages/train/b.jpg\n')
    folder.write('data.yaml', text)
    with pytest.raises(DataError, match=words) as error:
        folder.read(YoloDataset, 'data.yaml', part='train')
    assert '\n' not in str(error.value)
    assert not (folder.root / 'sprung').exists()


def test_a_yaml_that_grows(folder):
    """Nine levels of nine references each would be 400 million names as text."""
    levels = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
    levels += [f'a{k}: &a{k} [{", ".join([f"*a{k - 1}"] * 9)}]' for k in range(1, 10)]
    folder.write('data.yaml', '\n'.join([*levels, 'path: *a9', 'train: *a9', 'names: *a9']))
    with pytest.raises(DataError):
        folder.read(YoloDataset, 'data.yaml')


def test_a_part_that_is_not_there(folder):
    parts(folder)
    folder.write('data.yaml', f'{YAML}test: images/test')
    with pytest.raises(DataError, match='test is images/test, which is not in'):
        folder.read(YoloDataset, 'data.yaml', part='test')
    content, notes = folder.read(YoloDataset, 'data.yaml')
    assert len(content.images) == 2 and 'test is left out, because' in notes[0]


def test_no_label_file_at_all(folder):
    folder.draw('images/train/a.jpg')
    folder.write('data.yaml', 'train: images/train\nnames: [cat]')
    expected = re.escape('none of its 1 images has a label file; the first was expected at ')
    with pytest.raises(DataError, match=expected + '.*/labels/train/a.txt'):
        folder.read(YoloDataset, 'data.yaml')
