"""Tables: the columns of known tools, delimiters, parts, and what is refused."""

import numpy as np
import pytest

from frdet.datasets import CsvDataset
from frdet.errors import ConfigError, DataError

BOX = [[8, 6, 40, 30]]  # xyxy
TF = 'filename,width,height,class,xmin,ymin,xmax,ymax\n'
TABLES = {
    'RetinaNet': 'a.jpg,8,6,40,30,cat\nb.jpg,,,,,\n',
    'TensorFlow': f'{TF}a.jpg,80,60,cat,8,6,40,30\nb.jpg,80,60,,,,,\n',
    'Kaggle': 'image_id,width,height,bbox,source\na,80,60,"[8.0, 6.0, 32, 24]",x\nb,80,60,,x\n',
    'Open Images': 'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\na,x,cat,1,0.1,0.5,0.1,0.5\nb,x,,,,,,\n',
    'semicolons': TF.replace(',', ';') + 'a.jpg;80;60;cat;8;6;40;30\nb.jpg;;;;;;;\n',
    'tabs': TF.replace(',', '\t') + 'a.jpg\t80\t60\tcat\t8\t6\t40\t30\nb.jpg\t80\t60\t\t\t\t\t\n',
    'sides': 'image,label,x,y,w,h\na.jpg,cat,8,6,32,24\nb.jpg,,,,,\n',
    'sides called width and height': 'Image Name,Category,x,y,Width,Height\na.jpg,cat,8,6,32,24\nb.jpg,,,,,\n',
    'a mark and other ends of lines': '\ufeff'
    + (TF + 'a.jpg,80,60,cat,8,6,40,30\nb.jpg,80,60,,,,,').replace('\n', '\r\n'),
}


@pytest.mark.parametrize('text', TABLES.values(), ids=TABLES)
def test_columns_that_are_known(folder, text):
    folder.draw('images/a.jpg', 'images/b.jpg')
    folder.write('table.csv', text)
    content, notes = folder.read(CsvDataset, 'table.csv', 'images')
    np.testing.assert_allclose(content.boxes, BOX, atol=1e-5)
    assert [image['file_name'] for image in content.images] == ['a.jpg', 'b.jpg']
    assert all((image['height'], image['width']) == (60, 80) for image in content.images)
    assert (list(content.categories), notes) == (['object' if 'bbox' in text else 'cat'], [])


def test_ids_names_and_classes(folder):
    """The id is the name in the table; classes are sorted; an image keeps all its lines."""
    folder.draw('a.jpg', 'b.png')
    folder.write('t.csv', 'image_id,class,x1,y1,x2,y2\nb,dog,1,2,3,4\na.jpg,cat,1,2,3,4\nb,ant,1,2,5,4\n')
    content, _ = folder.read(CsvDataset, 't.csv')
    assert [(image['id'], image['file_name']) for image in content.images] == [('b', 'b.png'), ('a.jpg', 'a.jpg')]
    assert content.categories == {'ant': 1, 'cat': 2, 'dog': 3}
    assert (content.image_index.tolist(), content.category_index.tolist()) == ([0, 1, 0], [2, 1, 0])


def test_one_class_by_name(folder):
    folder.write('t.csv', TABLES['Kaggle'])
    content, _ = folder.read(CsvDataset, 't.csv', metainfo=dict(classes=['wheat']))
    assert list(content.categories) == ['wheat']


def test_columns_of_other_names(folder):
    folder.write('t.csv', 'photo;sort;l;t;r;b\na.jpg;cat;8;6;40;30\n')
    folder.write('n.csv', 'cat;a.jpg;8;6;40;30\n')
    folder.draw('a.jpg')
    with pytest.raises(DataError, match=r'it has the columns photo, sort, l, t, r, b; expected RetinaNet'):
        folder.read(CsvDataset, 't.csv')
    columns = dict(image='photo', label='sort', x1='l', y1='t', x2='r', y2='b')
    np.testing.assert_array_equal(folder.read(CsvDataset, 't.csv', columns=columns)[0].boxes, BOX)
    numbers = dict(label=0, image=1, x1=2, y1=3, x2=4, y2=5)
    np.testing.assert_array_equal(folder.read(CsvDataset, 'n.csv', columns=numbers)[0].boxes, BOX)
    with pytest.raises(DataError, match="it has no column 'foto', but photo, sort"):
        folder.read(CsvDataset, 't.csv', columns={**columns, 'image': 'foto'})
    with pytest.raises(ConfigError, match='columns has left: it takes image, label'):
        folder.dataset(CsvDataset, 't.csv', columns=dict(left='l'))


def test_parts(folder):
    """The classes are those of all parts, so that labels agree."""
    lines = ['a.jpg,cat,8,6,40,30,TRAIN', 'b.jpg,ant,8,6,40,30,Validation', 'c.jpg,,,,,,train']
    folder.write('t.csv', '\n'.join(['path,label,x1,y1,x2,y2,split', *lines]))
    folder.draw('a.jpg', 'b.jpg', 'c.jpg')
    for part, ids, labels in (('train', ['a.jpg', 'c.jpg'], [1]), ('val', ['b.jpg'], [0])):
        content, _ = folder.read(CsvDataset, 't.csv', part=part)
        assert ([image['id'] for image in content.images], content.category_index.tolist()) == (ids, labels)
        assert list(content.categories) == ['ant', 'cat']
    with pytest.raises(DataError, match="it has no image of the part 'test'"):
        folder.read(CsvDataset, 't.csv', part='test')
    folder.write('t.csv', TABLES['RetinaNet'])
    with pytest.raises(DataError, match="part is 'val', and it has no column split"):
        folder.read(CsvDataset, 't.csv', part='val')


def test_fractions_only_where_they_are_certain(folder):
    """A table of Open Images in pixels, and other tables, are pixels."""
    folder.draw('a.jpg')
    folder.write('t.csv', TABLES['Open Images'].replace('0.1,0.5,0.1,0.5', '8,40,6,30'))
    np.testing.assert_array_equal(folder.read(CsvDataset, 't.csv')[0].boxes, BOX)
    folder.write('t.csv', 'a.jpg,0.1,0.1,0.5,0.5,cat\n')
    np.testing.assert_allclose(folder.read(CsvDataset, 't.csv')[0].boxes, [[0.1, 0.1, 0.5, 0.5]])


def test_an_image_that_is_not_there(folder):
    """Without a size it is left out, with its boxes."""
    folder.draw('a.jpg')
    folder.write('t.csv', 'z.jpg,1,2,3,4,dog\na.jpg,8,6,40,30,cat\n')
    content, notes = folder.read(CsvDataset, 't.csv')
    np.testing.assert_array_equal(content.boxes, BOX)
    assert (content.image_index.tolist(), content.category_index.tolist()) == ([0], [0])
    assert '1 of 2 images have no size, because they cannot be read: z.jpg. They are left out' in notes[0]


REFUSED = {
    'no number': (f'{TF}a.jpg,80,60,cat,8,6,x,30\n', r"line 2, 'a\.jpg,80,60,cat,8,6,x,30': could not convert"),
    'too few cells': (
        f'{TF}a.jpg,80,60,cat,8,6\n',
        r"line 2, 'a\.jpg,80,60,cat,8,6': it has 6 cells, expected 8 or more",
    ),
    'not finite': (f'{TF}a.jpg,80,60,cat,8,6,40,inf\n', 'line 2, .*: expected finite numbers'),
    'no class': (f'{TF}a.jpg,80,60,,8,6,9,9\n', 'line 2, .*: the class is empty'),
    'half a box': ('a.jpg,8,,40,30,cat\n', 'line 1'),
    'a box of three': ('image_id,bbox\na,"[1,2,3]"\n', r'line 2, .*expected a box \[x, y, width, height\]'),
    'empty': ('', 'it is empty'),
    'no box': (TF, 'it has no image'),
    'negatives only': (f'{TF}a.jpg,80,60,,,,,\n', 'it has no box'),
    'VIA': ('filename,region_shape_attributes\n', 'It is the table of the VGG Image Annotator: export COCO there'),
    'zip': (b'PK\x03\x04', 'it is compressed: unpack it'),
    'latin': ('bild,größe\n'.encode('latin-1'), 'it is no text in utf-8'),
}


@pytest.mark.parametrize(('text', 'words'), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(folder, text, words):
    folder.write('t.csv', text)
    with pytest.raises(DataError, match=words) as error:
        folder.read(CsvDataset, 't.csv')
    assert '\n' not in str(error.value)
