"""VOC's XML files: pixels, difficult objects, images by name, encodings, and what is refused."""

import numpy as np
import pytest

from frdet.datasets import VocDataset
from frdet.errors import ConfigError, DataError

BOX = '<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>10</xmax><ymax>30.5</ymax></bndbox>'
SIZE = '<size><width>80</width><height>60</height><depth>3</depth></size>'


def thing(name='cat', more='', box=BOX):
    return f'<object><name>{name}</name>{more}{box}</object>'


def xml(*objects, name='a.jpg', size=SIZE):
    return f'<annotation><filename>{name}</filename>{size}{"".join(objects)}</annotation>'


def test_pixels_count_from_one_or_from_zero(folder):
    """Columns 1 to 10 are the first ten: 0 to 10 in continuous coordinates."""
    folder.draw('a.jpg')
    folder.write('a.xml', xml(thing()))
    content, notes = folder.read(VocDataset)
    np.testing.assert_array_equal(content.boxes, [[0, 10, 10, 30.5]])
    assert (content.categories, content.images, notes) == (
        {'cat': 1},
        [{'id': 'a.jpg', 'file_name': 'a.jpg', 'height': 60, 'width': 80}],
        [],
    )
    content, _ = folder.read(VocDataset, one_based=False)
    np.testing.assert_array_equal(content.xywh, [[1, 11, 9, 19.5]])


def test_a_box_that_begins_at_zero_is_noted(folder):
    folder.draw('a.jpg')
    folder.write('a.xml', xml(thing(), thing(box=BOX.replace('<xmin>1<', '<xmin>0<'))))
    assert '1 of 2 boxes begin at pixel 0' in folder.read(VocDataset)[1][0]
    assert folder.read(VocDataset, one_based=False)[1] == []


def test_difficult_truncated_and_parts(folder):
    hard = '<difficult>1</difficult><truncated>1</truncated><pose>Left</pose>'
    part = f'<part><name>head</name>{BOX}</part>'
    folder.write('a.xml', xml(thing('dog', hard), thing('cat', f'<truncated>1</truncated>{part}')))
    content, _ = folder.read(VocDataset)
    assert list(content.categories) == ['cat', 'dog']
    assert (content.category_index.tolist(), content.ignored.tolist()) == ([1, 0], [True, False])
    assert not folder.read(VocDataset, difficult='kept')[0].ignored.any()
    content, _ = folder.read(VocDataset, difficult='dropped')
    assert (list(content.categories), len(content.boxes)) == (['cat'], 1)
    with pytest.raises(ConfigError, match="difficult is 'no': expected ignored, kept, dropped"):
        folder.dataset(VocDataset, difficult='no')


def test_the_image_of_an_xml_file(folder):
    """By the name of the file; ``filename`` decides between two, or counts where there is none."""
    folder.draw('img/sub/b.png', 'img/c.jpg', 'img/c.png', 'img/other.jpg', 'img/e.jpg', 'img/f f 图.jpg')
    for stem, said in {
        'sub/b': 'C:\\photos\\gone.png',
        'c': 'c.png',
        'd': 'other.jpg',
        'e': 'f f 图.jpg',
        'f f 图': 'x',
    }.items():
        folder.write(f'xml/{stem}.xml', xml(thing(), name=said))
    content, notes = folder.read(VocDataset, 'xml', 'img')
    expected = ['c.png', 'other.jpg', 'e.jpg', 'f f 图.jpg', 'sub/b.png']
    assert [image['file_name'] for image in content.images] == expected
    (note,) = notes
    assert '1 XML files name another image than the one that is called like them' in note
    assert note.endswith('e.xml names f f 图.jpg')


@pytest.mark.parametrize('size', ['', SIZE.replace('80', '0'), '<size><width>80</width></size>'])
def test_a_size_that_is_missing_is_that_of_the_image(folder, size):
    folder.draw('a.jpg')
    folder.write('a.xml', xml(thing(), size=size))
    image = folder.read(VocDataset)[0].images[0]
    assert (image['height'], image['width']) == (60, 80)


def test_no_size_and_no_image(folder):
    """It is left out in training, and refused in testing."""
    folder.write('a.xml', xml(thing(), size=''))
    folder.write('b.xml', xml(thing(), name='b.jpg'))
    content, notes = folder.read(VocDataset)
    assert [image['id'] for image in content.images] == ['b.jpg'] and len(content.boxes) == 1
    assert '1 of 2 images have no size, because they cannot be read: a.jpg. They are left out' in notes[0]
    with pytest.raises(DataError, match='1 of 2 images have no size'):
        folder.read(VocDataset, test_mode=True)


def test_an_image_without_object_is_kept(folder):
    folder.draw('a.jpg', 'b.jpg', 'c.jpg')
    folder.write('a.xml', xml(thing()))
    folder.write('b.xml', xml(name='b.jpg'))
    content, _ = folder.read(VocDataset)
    assert [image['file_name'] for image in content.images] == ['a.jpg', 'b.jpg']


def test_parts(folder):
    for name in ('a', 'b b', 'c'):
        folder.draw(f'JPEGImages/{name}.jpg')
        folder.write(f'Annotations/{name}.xml', xml(thing(), name=f'{name}.jpg'))
    folder.write('ImageSets/Main/train.txt', 'b b  1\r\na -1\n\n')
    folder.write('ImageSets/Main/val.txt', 'c\nd\n')
    content, _ = folder.read(VocDataset, 'Annotations', 'JPEGImages', part='train')
    assert [image['file_name'] for image in content.images] == ['b b.jpg', 'a.jpg']
    with pytest.raises(DataError, match="the part 'val' lists 1 images without XML file: d"):
        folder.read(VocDataset, 'Annotations', 'JPEGImages', part='val')
    with pytest.raises(DataError, match=r'ImageSets/Main/test\.txt; known parts: train, val'):
        folder.read(VocDataset, 'Annotations', 'JPEGImages', part='test')


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'gbk', 'utf-16', 'GB18030', 'shift_jis'])
def test_encodings(folder, encoding):
    text = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\n{xml(thing("中国"))}'
    folder.write('a.xml', text.encode(encoding))
    assert list(folder.read(VocDataset)[0].categories) == ['中国']


BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;">]>'
REFUSED = {
    'entities': (BOMB + xml(thing('&y;')), r'a\.xml has a document type \(DOCTYPE\) or entities, which are not read'),
    'another file': ('<!DOCTYPE a SYSTEM "file:///etc/passwd">' + xml(thing()), 'DOCTYPE'),
    'no XML': ('{"a": 1}', r'a\.xml is no XML \(not well-formed'),
    'CVAT': ('<annotations/>', 'holds <annotations>, expected the <annotation> of Pascal VOC: in CVAT, export as'),
    'no name': (xml(thing(' ')), r'a\.xml: object 1 has no name'),
    'no box': (xml(thing(), thing(box='')), r'object 2 \(cat\) has no bndbox'),
    'no number': (xml(thing(box=BOX.replace('11', 'nan'))), r'object 1 \(cat\) has no bndbox'),
    'rotated': (xml(thing(box='<robndbox><cx>1</cx></robndbox>')), r'object 1 is a rotated box \(robndbox\)'),
    'encoding': ('<?xml version="1.0" encoding="klingon"?>' + xml(thing()), 'is no text in klingon, as it says'),
    'no object': (xml(), 'its 1 XML files have no object'),
}


@pytest.mark.parametrize(('text', 'words'), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(folder, text, words):
    folder.write('a.xml', text)
    with pytest.raises(DataError, match=words) as error:
        folder.read(VocDataset)
    assert '\n' not in str(error.value)


def test_no_xml_at_all(folder):
    with pytest.raises(DataError, match='it has no XML file'):
        folder.read(VocDataset)
