"""Pictures of 2 x 3 fields, A B C above D E F, in files that say they are to be turned."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from frdet.datasets.transforms import read_image

FIELD = 16  # pixels, a block of JPEG's
GREYS = {letter: 20 + 40 * k for k, letter in enumerate('ABCDEF')}
STORED = np.kron(
    np.array([[GREYS[c] for c in row] for row in ('ABC', 'DEF')], np.uint8), np.ones((FIELD, FIELD), np.uint8)
)
#: EXIF 2.32, 4.6.5: where the stored first row and first column are to be seen. By hand.
SHOWN = {
    1: ('ABC', 'DEF'),
    2: ('CBA', 'FED'),
    3: ('FED', 'CBA'),
    4: ('DEF', 'ABC'),
    5: ('AD', 'BE', 'CF'),
    6: ('DA', 'EB', 'FC'),
    7: ('FC', 'EB', 'DA'),
    8: ('CF', 'BE', 'AD'),
}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of each type


def letters(image):
    """The fields of an image, each by the letter of the nearest grey."""
    middles = image[FIELD // 2 :: FIELD, FIELD // 2 :: FIELD, 0].astype(int)
    return tuple(''.join(min(GREYS, key=lambda c: abs(GREYS[c] - grey)) for grey in row) for row in middles)


def directory(entries, order='<'):
    """A TIFF file of one directory: entries are (tag, type, count, value as bytes, or the place of one as a number)."""
    head = {'<': b'II*\0', '>': b'MM\0*'}[order] + struct.pack(order + 'IH', 8, len(entries))
    behind, rows = b'', b''
    for tag, kind, count, value in sorted(entries, key=lambda entry: entry[0]):
        place = 8 + 2 + 12 * len(entries) + 4 + len(behind)
        if isinstance(value, int):
            field = struct.pack(order + 'I', value)
        elif len(value) <= 4:
            field = value.ljust(4, b'\0')
        else:
            field, behind = struct.pack(order + 'I', place), behind + value
        rows += struct.pack(order + 'HHI', tag, kind, count) + field
    return head + rows + bytes(4) + behind


def oriented(value, order='<'):
    return directory([(0x0112, 3, 1, struct.pack(order + 'H', value))], order)


def saved(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(STORED).convert('RGB').save(stream, kind, **options)
    return stream.getvalue()


def chunk(name, data):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))


def png_with_raw_profile(exif):
    """ImageMagick's way: the block in hexadecimal digits, in a text."""
    block = b'Exif\0\0' + exif
    text = f'\nexif\n{len(block):8}\n{block.hex()}\n'.encode()
    content = saved('png')
    return content[:33] + chunk(b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(text)) + content[33:]


def png_with_late_exif(exif):
    """Behind the pixels, before the last 12 bytes, which end the file."""
    content = saved('png')
    return content[:-12] + chunk(b'eXIf', exif) + content[-12:]


def tiff(entries, order='<'):
    """Its own directory is where EXIF's entries stand."""
    needed = {0x100: 48, 0x101: 32, 0x102: 8, 0x103: 1, 0x106: 1, 0x111: 4096, 0x115: 1, 0x116: 32, 0x117: STORED.size}
    own = [(tag, 4, 1, struct.pack(order + 'I', value)) for tag, value in needed.items()]
    return directory([*own, *(e for e in entries if e[0] not in needed)], order).ljust(4096, b'\0') + STORED.tobytes()


FILES = {
    'jpg': lambda exif: saved('jpeg', exif=b'Exif\0\0' + exif),
    'mpo': lambda exif: saved('mpo', exif=b'Exif\0\0' + exif, save_all=True, append_images=[Image.new('RGB', (9, 9))]),
    'png': lambda exif: saved('png', exif=exif),
    'raw.png': png_with_raw_profile,
    'late.png': png_with_late_exif,
    'webp': lambda exif: saved('webp', exif=exif, lossless=True),
}


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('value', SHOWN)
def test_every_orientation_in_every_format(tmp_path, value, order):
    entry = (0x0112, 3, 1, struct.pack(order + 'H', value))
    contents = {name: make(directory([entry], order)) for name, make in FILES.items()}
    contents['tif'] = tiff([entry], order)
    contents['xmp.webp'] = saved('webp', lossless=True, xmp=f'<rdf:Description tiff:Orientation="{value}"/>'.encode())
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert letters(read_image(str(tmp_path / name))) == SHOWN[value], name


TURNED = (0x0112, 3, 1, b'\6\0')
ODD = {
    'text as rational': (0x010E, 5, 1, struct.pack('<II', 72, 1)),
    'maker beyond the block': (0x010F, 2, 99, 2**20),
    'model of negative place': (0x0110, 2, 99, 2**32 - 1),
    'resolution as text': (0x011A, 2, 3, b'72\0'),
    'resolution as one byte': (0x011A, 7, 1, b'\0'),  # Pillow finds no JPEG in such a file
    'resolution as empty text': (0x011A, 2, 1, b'\0'),
    'resolution by 0': (0x011A, 5, 1, struct.pack('<II', 72, 0)),
    'unit as byte': (0x0128, 1, 1, b'\2'),
    'unknown type': (0x0131, 99, 1, b'\2'),
    'no value': (0x0131, 2, 0, b''),
    'endless': (0x0132, 3, 2**31, 8),
    'XMP as numbers': (0x02BC, 4, 3, bytes(12)),
    'EXIF directory beyond the block': (0x8769, 4, 1, 2**31),
    'EXIF directory at a negative place': (0x8769, 9, 1, 2**32 - 1),
    'EXIF directory that is its parent': (0x8769, 4, 1, 8),
    'GPS directory as text': (0x8825, 2, 4, b'abc\0'),
    'orientation again': (0x0112, 3, 1, b'\3\0'),
}


@pytest.mark.filterwarnings('ignore')  # Pillow's
@pytest.mark.parametrize('odd', ODD.values(), ids=ODD)
def test_other_entries_do_not_matter(tmp_path, odd):
    entries = [TURNED, odd, (0x0128, 3, 1, b'\2\0')]
    contents = {name: make(directory(entries)) for name, make in FILES.items()}
    if odd[0] > 0x0112:  # in front of it TIFF keeps what the pixels need
        contents['tif'] = tiff(entries)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert letters(read_image(str(tmp_path / name))) == SHOWN[6], name


@pytest.mark.filterwarnings('ignore')
@given(data=st.data())
def test_any_other_entries_do_not_matter(tmp_path, data):
    order = data.draw(st.sampled_from('<>'))
    tags = st.sampled_from(
        [0x100, 0x10E, 0x10F, 0x110, 0x111, 0x11A, 0x128, 0x13B, 0x14A, 0x201, 0x2BC, 0x8769, 0x8825]
    )
    places = st.sampled_from([0, 1, 8, 2**20, 2**32 - 1])
    entry = st.tuples(tags, st.integers(0, 15), st.integers(0, 9), places | st.binary(max_size=16))
    others = data.draw(st.lists(entry, max_size=4))
    content = directory([(0x0112, 3, 1, struct.pack(order + 'H', 8)), *others], order)
    for name in ('jpg', 'png', 'webp'):
        (tmp_path / name).write_bytes(FILES[name](content))
        assert letters(read_image(str(tmp_path / name))) == SHOWN[8], name


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'block',
    [b'', b'no TIFF file', b'II*\0', b'II*\0\x08\0\0\0\x05\0', b'II\0\0' + oriented(6)[4:], b'MM' + oriented(6)[2:]],
)
def test_a_block_that_is_none_leaves_the_picture(tmp_path, block):
    for name in ('jpg', 'png', 'webp'):
        (tmp_path / name).write_bytes(FILES[name](block))
        assert letters(read_image(str(tmp_path / name))) == SHOWN[1], name


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    ('order', 'kind', 'count', 'value', 'is_turned'),
    [
        ('<', 4, 1, b'\6\0\0\0', True),  # 32 bits
        ('>', 4, 1, b'\0\0\0\6', True),
        ('<', 1, 1, b'\6', True),  # a byte
        ('<', 3, 2, b'\6\0\6\0', True),  # two numbers
        ('<', 5, 1, struct.pack('<II', 6, 1), True),  # a rational number
        ('>', 11, 1, struct.pack('>f', 6), True),
        ('<', 2, 2, b'6\0', False),  # text
        ('<', 11, 1, struct.pack('<f', 5.5), False),
        ('<', 5, 1, struct.pack('<II', 6, 0), True),  # without its denominator
        ('<', 3, 1, b'\0\0', False),
        ('<', 3, 1, b'\x09\0', False),
        ('<', 3, 1, struct.pack('<H', 300), False),
        ('<', 9, 1, struct.pack('<i', -6), False),
        ('<', 12, 1, 2**20, False),  # beyond the block
    ],
)
def test_the_orientation_as_another_type(tmp_path, order, kind, count, value, is_turned):
    block = directory([(0x0112, kind, count, value)], order)
    for name in ('jpg', 'png'):
        (tmp_path / name).write_bytes(FILES[name](block))
        assert letters(read_image(str(tmp_path / name))) == SHOWN[6 if is_turned else 1], name


@pytest.mark.parametrize('value', [*SHOWN, 0, 9, 300])
@pytest.mark.parametrize('order', '<>')
def test_opencv_turns_alike(tmp_path, value, order):
    (tmp_path / 'a.jpg').write_bytes(FILES['jpg'](oriented(value, order)))
    expected = cv2.imread(str(tmp_path / 'a.jpg'))
    assert letters(read_image(str(tmp_path / 'a.jpg'))) == letters(expected) == SHOWN.get(value, SHOWN[1])


def test_exif_comes_before_xmp(tmp_path):
    both = saved('webp', lossless=True, xmp=b'<rdf:Description tiff:Orientation="3"/>', exif=oriented(8))
    (tmp_path / 'a.webp').write_bytes(both)
    assert letters(read_image(str(tmp_path / 'a.webp'))) == SHOWN[8]
