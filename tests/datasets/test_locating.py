"""Files that names mean, where they are certain."""

import pytest

from frdet.datasets.locating import examples, locate

FILES = (
    'a.png',
    'sub/b.JPG',
    'sub/deep/c.tif',
    'ünï çödé.png',
    'with space.png',
    'd.jpg',
    'D.png',
    'one/e.png',
    'two/e.png',
)


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'images' / name).touch()
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'f.png').touch()
    return tmp_path


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('a.png', 'a.png'),
        ('./sub/b.JPG', './sub/b.JPG'),
        ('sub\\b.JPG', 'sub/b.JPG'),
        ('..\\..\\media\\upload\\sub\\b.jpg', 'sub/b.JPG'),
        ('C:\\Users\\me\\images\\a.png', 'a.png'),
        ('SUB/Deep/C.TIF', 'sub/deep/c.tif'),
        ('images/a.png', 'a.png'),
        ('a', 'a.png'),
        ('a.jpeg', 'a.png'),
        ('b.JPG', 'sub/b.JPG'),
        ('http://localhost:8080/data/upload/1/a.png?d=1', 'a.png'),
        ('with%20space.png', 'with space.png'),
        ('e.png', None),  # in two folders
        ('d', None),  # two files are like it
        ('d.png', 'D.png'),  # one file is
        ('c.tif', None),  # two folders down
        ('f.png', None),  # beside the folder
        ('sub', None),
        ('..', None),
        ('', None),
        ('a\0b', None),
    ],
)
def test_one_name(root, name, expected):
    located = locate([name, name], root / 'images')
    assert located.names == [name if expected is None else expected] * 2
    assert located.replaced == ({} if expected in (None, name) else {name: expected})
    assert located.missing == ([name] if expected is None else [])


def test_an_absolute_path(root):
    path = str(root / 'other' / 'f.png')
    assert locate([path], root / 'images').names == [path]


@pytest.mark.parametrize('names', [['1/a.png', '2/a.png'], ['a.png', 'x/a.png'], ['A.PNG', 'x/a.jpg']])
def test_a_file_that_two_names_mean(root, names):
    located = locate(names, root / 'images')
    assert located.names == names and located.replaced == {}
    assert located.missing == [name for name in names if name != 'a.png']


def test_each_folder_is_listed_once(root, monkeypatch):
    """And no file is looked at: a data set of 100,000 images begins in less than a second."""
    import os

    listed, real = [], os.scandir
    monkeypatch.setattr('os.scandir', lambda path: listed.append(path) or real(path))
    monkeypatch.setattr('os.stat', None)
    locate([f'{k}.png' for k in range(1000)] + ['sub/b.JPG', 'a.png'] * 1000, str(root / 'images'))
    assert sorted(listed) == sorted({*listed}) and len(listed) <= 6


def test_messages(root):
    located = locate(['sub\\b.jpg', 'a', 'z.png'], root / 'images')
    said = located.messages('t.json', 'images')
    assert said == [
        't.json: 1 of 3 file names are written otherwise than the files in images, which are read. For example, '
        'sub/b.JPG is read for sub\\b.jpg',
        't.json: 1 of 3 images are not in images: z.png',
    ]
    assert locate(['a'], root / 'images').messages('t', 'i') == []  # only the ending is not there
    assert examples('abcd') == 'a, b, c, ...'
