import unicodedata

import pytest

from frdet.datasets.near_files import describe_missing, near_file

FILES = (
    'images/a.png',
    'images/sub/b.JPG',
    'images/sub/deep/c.tif',
    'images/ünï çödé.png',
    'images/with space.png',
    'images/d%20e.png',
    'images/labels.txt',
    'other/f.jpg',
)


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        (r'sub\b.JPG', 'images/sub/b.JPG'),
        (r'sub\deep\c.tif', 'images/sub/deep/c.tif'),
        (r'..\..\media\upload\sub\b.JPG', 'images/sub/b.JPG'),
        (r'C:\Users\me\images\a.png', 'images/a.png'),
        ('sub/b.jpg', 'images/sub/b.JPG'),
        ('SUB/Deep/C.TIF', 'images/sub/deep/c.tif'),
        ('images/a.png', 'images/a.png'),  # the folder twice
        ('train/images/sub/b.JPG', 'images/sub/b.JPG'),
        ('sub/a.png', 'images/a.png'),
        ('a.jpg', 'images/a.png'),  # converted
        ('a', 'images/a.png'),
        (' a.png', 'images/a.png'),
        (unicodedata.normalize('NFD', 'ünï çödé.png'), 'images/ünï çödé.png'),
        ('with%20space.png', 'images/with space.png'),
        ('d e.png', 'images/d%20e.png'),
        ('c.tif', None),  # two folders down: nothing is searched in depth
        ('b.JPG', 'images/sub/b.JPG'),
        ('f.jpg', 'other/f.jpg'),  # beside the folder
        ('other/f.jpg', 'other/f.jpg'),
        ('http://localhost:8080/data/upload/1/a.png', 'images/a.png'),
        ('https://host/images/sub/b.JPG?size=large#top', 'images/sub/b.JPG'),
        ('s3://bucket/with%20space.png', 'images/with space.png'),
        ('g.png', None),
        ('labels.png', None),
        ('sub', None),
        ('..', None),
        ('', None),
    ],
)
@pytest.mark.parametrize('is_folder_known', [True, False])
def test_near_files(root, name, expected, is_folder_known):
    folder = root / 'images'
    found = near_file(str(folder / name), str(folder) if is_folder_known else None)
    assert found == (None if expected is None else str(root / expected))


def test_an_absolute_path_of_another_machine(root):
    assert near_file('/home/another/images/sub/b.JPG', str(root / 'images')) == str(root / 'images/sub/b.JPG')


def test_nothing_is_near_where_there_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert near_file('none/at/all.png') is None
    assert near_file('all.png') is None


def test_a_file_added_later_is_found(root):
    folder = root / 'images'
    assert near_file(str(folder / 'LATE.png')) is None
    (folder / 'late.png').touch()
    assert near_file(str(folder / 'LATE.png')) == str(folder / 'late.png')


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('A.png', 'is not on disk; {}/images/a.png is there: correct its name in the annotations'),
        ('g.png', 'is not on disk: add the file, or remove it from the annotations'),
        (
            'http://host/a.png',
            'is an address, and images are read from disk; {}/images/a.png is there: '
            'correct its name in the annotations',
        ),
        (
            'http://host/g.png',
            'is an address, and images are read from disk: '
            'fetch the image, and write its path below the image folder into the annotations',
        ),
    ],
)
def test_words(root, name, expected):
    assert describe_missing(str(root / 'images' / name)) == expected.format(root)
