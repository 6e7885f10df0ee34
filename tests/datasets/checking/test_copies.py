"""Pictures that are in the data twice: byte by byte, or looking alike."""

import shutil

import pytest
from PIL import ImageEnhance

from frdet.datasets.checking import Findings
from frdet.datasets.checking.copies import Group, find_copies, find_near_duplicates
from frdet.datasets.checking.images import ImageFile
from tests.datasets.test_near_duplicates import photo


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Finds copies among the pictures of the folders ``train`` and ``val``, and says in which files."""
    monkeypatch.setenv('FRDET_CACHE', str(tmp_path / 'cache'))
    for split, seeds in (('train', range(4)), ('val', range(4, 8))):
        (tmp_path / split).mkdir()
        for seed in seeds:
            photo(seed).save(tmp_path / split / f'{seed}.png')

    def find(splits=(('train',), ('val',))):
        groups = []
        for used in splits:
            folder = tmp_path / used[0]
            files = [ImageFile(str(path), path.name, (160, 120)) for path in sorted(folder.iterdir())]
            groups.append(Group(used, files, str(folder), Findings()))
        together = Findings()
        find_near_duplicates(groups, together, find_copies(groups, together, within=True))
        return together, *(group.findings for group in groups)

    find.folder = tmp_path
    return find


def save(image, path):
    image.save(path, quality=60)


def test_unlike_pictures(found):
    assert found() == ({}, {}, {})


def test_a_changed_copy_of_a_training_image(found):
    """The nearest of two is named: the one that was only saved again."""
    save(photo(1), found.folder / 'val/again.jpg')
    save(ImageEnhance.Brightness(photo(1)).enhance(0.7), found.folder / 'train/dark.jpg')
    together, train, val = found()
    (example,) = together['near-duplicate in two splits'].examples
    assert example.startswith('again.jpg of val is like 1.png of train (') and example.endswith(' of 256 bits differ)')
    ((first, second),) = together.pictures['near-duplicate in two splits']
    assert (first.path, second.path) == (str(found.folder / 'val/again.jpg'), str(found.folder / 'train/1.png'))
    assert train['near-duplicate image'].times == 1 and 'dark.jpg is like 1.png' in str(train)
    assert not val


def test_equal_files_are_no_near_duplicates(found):
    shutil.copy(found.folder / 'train/1.png', found.folder / 'val/copy.png')
    shutil.copy(found.folder / 'val/5.png', found.folder / 'val/other.png')
    together, train, val = found()
    assert together == {'image in two splits': (1, ('copy.png of val is 1.png of train',))}
    assert val == {'repeated image': (1, ('other.png is the same picture as 5.png',))} and not train


def test_a_folder_of_two_splits(found):
    """That all its images are in both is said once."""
    together, _ = found([('train', 'val')])
    assert together == {'image in two splits': (1, ('all 4 of train and val',))}


def test_splits_without_training(found):
    """Validation and test are not compared: what is in both is not learnt."""
    save(photo(5), found.folder / 'train/5.jpg')
    (found.folder / 'train').rename(found.folder / 'test')
    assert found([('test',), ('val',)])[0] == {}
