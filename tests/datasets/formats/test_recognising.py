"""What folders and files of labelling tools are taken for. What is found can be read."""

import json
import os
import re

import pytest

from frdet.datasets.formats.recognising import recognise
from frdet.errors import DataError
from frdet.registry import DATASETS

XML = '<annotation><object><name>cat</name><bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>'
XML += '</object></annotation>'
LABEL = '0 0.5 0.5 0.5 0.5\n'
ROW = ',1,2,9,9,cat\n'


def coco(*names):
    images = [dict(id=k, file_name=name, width=80, height=60) for k, name in enumerate(names)]
    boxes = [dict(id=k, image_id=k, category_id=1, bbox=[1, 2, 3, 4]) for k in range(len(names))]
    return json.dumps(dict(images=images, annotations=boxes, categories=[dict(id=1, name='cat')]))


def one(ann_file, img, **more):
    return dict(ann_file=ann_file, data_prefix=dict(img=img), **more)


# The files of a folder with their content; images are drawn. Then the type, and the arguments of each part.
LAYOUTS = {
    'COCO': (
        {
            'annotations/instances_train2017.json': coco('a.jpg'),
            'annotations/instances_val2017.json': coco('b.jpg'),
            'annotations/captions_val2017.json': coco('b.jpg'),
            'train2017/a.jpg': None,
            'val2017/b.jpg': None,
        },
        'CocoDataset',
        {
            'train': one('annotations/instances_train2017.json', 'train2017'),
            'val': one('annotations/instances_val2017.json', 'val2017'),
        },
    ),
    'Roboflow COCO': (
        {f'{split}/_annotations.coco.json': coco('a.jpg') for split in ('train', 'valid', 'test')}
        | {f'{split}/a.jpg': None for split in ('train', 'valid', 'test')}
        | {'README.roboflow.txt': 'words'},
        'CocoDataset',
        {
            'train': one('train/_annotations.coco.json', 'train'),
            'val': one('valid/_annotations.coco.json', 'valid'),
            'test': one('test/_annotations.coco.json', 'test'),
        },
    ),
    'CVAT or Label Studio COCO': (
        {'result.json': coco('images\\a.jpg', 'images\\b.jpg'), 'images/a.jpg': None, 'images/b.jpg': None},
        'CocoDataset',
        {'all': one('result.json', 'images')},
    ),
    'names with folders': (
        {'labels.json': coco('one/a.jpg', 'two/a.jpg'), 'pictures/one/a.jpg': None, 'pictures/two/a.jpg': None},
        'CocoDataset',
        {'all': one('labels.json', 'pictures')},
    ),
    'VOC': (
        {
            'VOC2007/Annotations/a.xml': XML.format(1),
            'VOC2007/Annotations/b.xml': XML.format(1),
            'VOC2007/JPEGImages/a.jpg': None,
            'VOC2007/JPEGImages/b.jpg': None,
            'VOC2007/ImageSets/Main/train.txt': 'a\n',
            'VOC2007/ImageSets/Main/val.txt': 'b\n',
            'VOC2007/ImageSets/Main/cat_train.txt': 'a 1\n',
            'VOC2007/ImageSets/Main/trainval.txt': 'a\nb\n',
        },
        'VocDataset',
        {
            'train': one('VOC2007/Annotations', 'VOC2007/JPEGImages', part='train'),
            'val': one('VOC2007/Annotations', 'VOC2007/JPEGImages', part='val'),
        },
    ),
    'XML beside images, from 0': (
        {'a.xml': XML.format(0), 'b.xml': XML.format(5), 'a.jpg': None, 'b.png': None},
        'VocDataset',
        {'all': one('.', '', one_based=False)},
    ),
    'Roboflow VOC': (
        {
            f'{split}/a.{end}': text
            for split in ('train', 'valid')
            for end, text in (('xml', XML.format(1)), ('jpg', None))
        },
        'VocDataset',
        {'train': one('train', 'train'), 'val': one('valid', 'valid')},
    ),
    'Ultralytics': (
        {
            'data.yaml': 'path: .\ntrain: images/train\nval: images/val\nnames: [cat]',
            'images/train/a.jpg': None,
            'images/val/b.jpg': None,
            'labels/train/a.txt': LABEL,
            'labels/val/b.txt': LABEL,
        },
        'YoloDataset',
        {'train': one('data.yaml', '', part='train'), 'val': one('data.yaml', '', part='val')},
    ),
    'Roboflow YOLO without test': (
        {
            'data.yaml': 'train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat]',
            'train/images/a.jpg': None,
            'valid/images/b.jpg': None,
            'train/labels/a.txt': LABEL,
            'valid/labels/b.txt': LABEL,
        },
        'YoloDataset',
        {'train': one('data.yaml', '', part='train'), 'val': one('data.yaml', '', part='val')},
    ),
    'the same images twice': (
        {'data.yaml': 'train: images\nval: images\nnames: [cat]', 'images/a.jpg': None, 'labels/a.txt': LABEL},
        'YoloDataset',
        {'all': one('data.yaml', '', part='train')},
    ),
    'CVAT YOLO': (
        {
            'obj.data': 'train = data/train.txt\nnames = data/obj.names',
            'obj.names': 'cat\n',
            'train.txt': 'data/obj_train_data/a.jpg\n',
            'obj_train_data/a.jpg': None,
            'obj_train_data/a.txt': LABEL,
        },
        'YoloDataset',
        {'all': one('obj.data', '', part='train')},
    ),
    'LabelImg': (
        {'classes.txt': 'cat', 'README.txt': 'words', 'a.txt': LABEL, 'a.jpg': None},
        'YoloDataset',
        {'all': one('.', '')},
    ),
    'Label Studio YOLO': (
        {
            'classes.txt': 'cat',
            'notes.json': '{"categories": [{"id": 0, "name": "cat"}]}',
            'labels/a.txt': LABEL,
            'images/a.jpg': None,
        },
        'YoloDataset',
        {'all': one('labels', 'images')},
    ),
    'YOLO folders': (
        {
            'classes.txt': 'cat',
            **{f'labels/{split}/a.txt': LABEL for split in ('train', 'val')},
            **{f'images/{split}/a.jpg': None for split in ('train', 'val')},
        },
        'YoloDataset',
        {'train': one('labels/train', 'images/train'), 'val': one('labels/val', 'images/val')},
    ),
    'RetinaNet': (
        {
            'train.csv': f'img/a.jpg{ROW}',
            'val.csv': f'img/b.jpg{ROW}',
            'classes.csv': 'cat,0\n',
            'img/a.jpg': None,
            'img/b.jpg': None,
        },
        'CsvDataset',
        {'train': one('train.csv', ''), 'val': one('val.csv', '')},
    ),
    'CSV with a split': (
        {
            'labels.csv': 'image,xmin,ymin,xmax,ymax,class,split\na,1,2,9,9,cat,train\nb,1,2,9,9,cat,val\n',
            'img/a.jpg': None,
            'img/b.jpg': None,
        },
        'CsvDataset',
        {'train': one('labels.csv', 'img', part='train'), 'val': one('labels.csv', 'img', part='val')},
    ),
    'Kaggle': (
        {
            'train.csv': 'image_id,bbox\nab,"[1, 2, 3, 4]"\n',
            'sample_submission.csv': 'image_id,PredictionString\nc,\n',
            'train/ab.jpg': None,
            'test/c.jpg': None,
        },
        'CsvDataset',
        {'all': one('train.csv', 'train')},
    ),
    'images alone': ({'a.jpg': None, 'sub/b.jpg': None}, 'ImageFolder', {'all': one('', '')}),
}


def fill(folder, files):
    for name, text in files.items():
        folder.draw(name) if text is None else folder.write(name, text)


@pytest.mark.parametrize(('files', 'kind', 'parts'), LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(folder, files, kind, parts):
    fill(folder, files)
    found = recognise(folder.root)
    assert (found.reader, found.root, found.parts) == (kind, str(folder.root), parts)
    more = dict(metainfo=dict(classes=['cat'])) if kind == 'ImageFolder' else {}
    for args in found.parts.values():
        # Serialising collects garbage, which takes longer than all else.
        dataset = DATASETS.build(dict(type=found.reader, data_root=found.root, serialize_data=False, **args, **more))
        assert dataset.metainfo['classes'][0] in ('cat', 'object')
        assert all((folder.root / dataset.get_data_info(k)['img_path']).is_file() for k in range(len(dataset)))


@pytest.mark.parametrize(
    ('layout', 'name', 'parts'),
    [
        ('COCO', 'annotations/instances_val2017.json', {'all': one('annotations/instances_val2017.json', 'val2017')}),
        ('LabelImg', 'classes.txt', None),
        ('RetinaNet', 'val.csv', {'all': one('val.csv', '')}),
        ('Ultralytics', 'data.yaml', LAYOUTS['Ultralytics'][2]),
        ('VOC', 'VOC2007/Annotations/a.xml', None),
        ('images alone', 'a.jpg', None),
    ],
)
def test_a_file(folder, layout, name, parts, monkeypatch):
    """Relative to the current folder, too."""
    fill(folder, LAYOUTS[layout][0])
    monkeypatch.chdir(folder.root)
    if parts is None:
        with pytest.raises(DataError, match=rf'{name} is no COCO JSON, no data\.yaml or obj\.data'):
            recognise(name)
    else:
        found = recognise(name)
        assert (found.root, found.parts) == (str(folder.root), parts)


NOTES = {
    'XML beside images, from 0': 'Boxes begin at pixel 0, for example in a.xml, so pixels are taken to count from 0',
    'Roboflow YOLO without test': 'The part test is left out: data.yaml: test is ../test/images, which is not in',
    'the same images twice': 'train and val of data.yaml are the same images: val is left out',
    'CVAT or Label Studio COCO': '2 of 2 file names are written otherwise than the files in',
    'images alone': 'No labels were found',
}


@pytest.mark.parametrize(('layout', 'words'), NOTES.items())
def test_notes(folder, layout, words):
    fill(folder, LAYOUTS[layout][0])
    assert words in ' '.join(recognise(folder.root).notes)


@pytest.mark.parametrize('layout', ['COCO', 'VOC', 'RetinaNet', 'XML beside images, from 0'])
def test_images_without_an_entry(folder, layout):
    """In the folders of the labelled images; in VOC's lists each image belongs to some part."""
    fill(folder, LAYOUTS[layout][0])
    assert not any('no label entry' in note for note in recognise(folder.root).notes)
    place = LAYOUTS[layout][2]
    img = next(iter(place.values()))['data_prefix']['img'] or ('img' if layout == 'RetinaNet' else '')
    new = os.path.join(img, 'new.jpg')
    folder.draw(new, 'elsewhere/z.jpg')
    (note,) = (note for note in recognise(folder.root).notes if 'no label entry' in note)
    assert note.startswith('1 images beside the labelled ones') and new in note


@pytest.mark.parametrize('layout', ['Ultralytics', 'Label Studio YOLO', 'LabelImg', 'CVAT YOLO'])
def test_labels_without_an_image(folder, layout):
    files = LAYOUTS[layout][0]
    fill(folder, files)
    assert not any('no image' in note for note in recognise(folder.root).notes)
    label = next(name for name in files if name.endswith('/a.txt') or name == 'a.txt')
    folder.write(label.replace('a.txt', 'gone.txt'), LABEL)
    (note,) = (note for note in recognise(folder.root).notes if 'no image' in note)
    assert note.startswith('1 label files have no image: ') and 'gone' in note


REFUSED = {
    'empty': ({}, 'has no image and no labels that are known (it is empty)'),
    'other files': ({'a.doc': '', 'b.doc': ''}, '(2 with .doc): expected images with COCO JSON, Pascal VOC XML'),
    'two formats': (
        {'a.json': coco('a.jpg'), 'xml/a.xml': XML.format(1), 'a.jpg': None},
        'holds COCO JSON (a.json) and Pascal VOC XML (xml): give the folder or the file of one of them',
    ),
    'several files': (
        {'a.json': coco('a.jpg'), 'b.json': coco('a.jpg'), 'a.jpg': None},
        'holds 2 COCO files for one data set, a.json, b.json: give the file that you want',
    ),
    'several tables': (
        {'a.csv': f'a.jpg{ROW}', 'b.csv': f'a.jpg{ROW}', 'a.jpg': None},
        'holds 2 tables, a.csv, b.csv: give the one that you want',
    ),
    'no images': ({'a.json': coco('a.jpg', 'b.jpg')}, 'labels 2 images, such as a.jpg, and none of them is in'),
    'other images': ({'a.xml': XML.format(1), 'img/z.jpg': None}, 'which has other images: img/z.jpg. Put the images'),
    'VIA': (
        {'via.json': '{"_via_settings": {}, "_via_img_metadata": {}}', 'a.jpg': None},
        'via.json holds labels of the VGG Image Annotator: choose Annotation, Export Annotations (COCO format)',
    ),
    'VIA, its annotations alone': ({'via.json': '{"a.jpg1": {"filename": "a.jpg", "regions": []}}'}, 'VGG Image'),
    'LabelMe': (
        {'a.json': '{"version": "5.0", "flags": {}, "shapes": [], "imagePath": "a.jpg"}', 'a.jpg': None},
        'a.json holds labels of LabelMe: convert its folder by labelme2coco',
    ),
    'Label Studio': (
        {'project.json': '[{"id": 1, "annotations": [{"id": 1, "result": []}], "data": {}}]', 'a.jpg': None},
        'of Label Studio: export as COCO',
    ),
}


@pytest.mark.parametrize(('files', 'words'), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(folder, files, words):
    fill(folder, files)
    with pytest.raises(DataError, match=re.escape(words)) as error:
        recognise(folder.root)
    assert '\n' not in str(error.value)


def test_nothing_there(folder):
    with pytest.raises(DataError, match='gone does not exist: expected a folder of labelled images'):
        recognise(folder.root / 'gone')


def test_most_images_are_missing(folder):
    folder.draw('img/a.jpg')
    folder.write('a.json', coco('a.jpg', 'b.jpg', 'c.jpg'))
    found = recognise(folder.root)
    assert found.parts == {'all': one('a.json', 'img')}
    assert found.notes == [f'a.json: 2 of 3 images are not in {folder.root}/img: b.jpg, c.jpg']
