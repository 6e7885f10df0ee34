"""Dividing a data set: the same parts everywhere, classes in their shares, groups together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frdet.datasets import Annotations, DetDataset
from frdet.datasets.splitting import checked_split, divide
from frdet.errors import ConfigError, DataError


def annotations(labels, *, names=None, crowd=(), categories='abcde'):
    """Images 0.png, 1.png, ... with a box for each of their labels; the boxes at the places in ``crowd`` are crowds."""
    names = names or [f'{k}.png' for k in range(len(labels))]
    pairs = [(image, label) for image, found in enumerate(labels) for label in found]
    return Annotations(
        images=[dict(id=k, file_name=name, height=10, width=10) for k, name in enumerate(names)],
        categories=list(categories),
        image_index=[image for image, _ in pairs],
        category_index=[label for _, label in pairs],
        boxes=[[0, 0, 5, 5]] * len(pairs),
        crowd=[k in crowd for k in range(len(pairs))],
    )


def parts(content, *, groups=None, **split):
    groups = np.arange(len(content.images)) if groups is None else np.asarray(groups)
    return divide(content, checked_split(split, 'train'), groups)


def test_each_class_and_the_negatives_are_divided_in_the_shares():
    """Of 100, 40 and 10 images of one class and 50 without a box: 60%, 30% and 10% of each."""
    content = annotations([[0]] * 100 + [[1]] * 40 + [[2]] * 10 + [[]] * 50)
    part_of = parts(content, val=0.3, test=0.1).part_of
    counts = [np.bincount(part_of[start:end]).tolist() for start, end in [(0, 100), (100, 140), (140, 150), (150, 200)]]
    assert counts == [[60, 30, 10], [24, 12, 4], [6, 3, 1], [30, 15, 5]]


def test_fractions_of_images_are_not_lost_from_class_to_class():
    """Five classes of 7 images want 1.4 each for validation: 7 in all, so some get 2."""
    part_of = parts(annotations([[k % 5] for k in range(35)]), val=0.2).part_of
    assert part_of.sum() == 7 and {(part_of[k::5]).sum() for k in range(5)} == {1, 2}


@pytest.mark.parametrize(('count', 'expected'), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])])
def test_few_images_of_a_class(count, expected):
    """Training comes first, then validation, then test."""
    division = parts(annotations([[0]] * 40 + [[1]] * count), val=0.1, test=0.1)
    assert np.bincount(division.part_of[40:], minlength=3).tolist() == expected
    assert division.only_in_train == (['b'] if count == 1 else [])


def test_rare_classes_in_images_with_others():
    """Class 1 is only in images that also have class 0, which must not take them all to training."""
    division = parts(annotations([[0]] * 50 + [[0, 1]] * 2 + [[0, 2]] * 2), val=0.2)
    assert sorted(division.part_of[50:52]) == sorted(division.part_of[52:]) == [0, 1]
    assert abs(division.part_of.sum() - 54 * 0.2) <= 1


def test_crowds_and_ignored_objects_are_no_objects():
    content = annotations([[0]] * 10 + [[1]] * 10, crowd=range(10, 20))
    with_none = annotations([[0]] * 10 + [[]] * 10)
    assert parts(content).part_of.tolist() == parts(with_none).part_of.tolist()


@given(st.lists(st.tuples(st.sets(st.integers(0, 4)), st.integers(0, 12)), min_size=2, max_size=40), st.integers(0, 3))
def test_any_images(images, seed):
    """Groups stay together, a class alone in its images is on both sides, and the order of images does not matter."""
    labels, groups = zip(*images, strict=True)
    division = parts(annotations(labels), groups=groups, val=0.25, seed=seed)
    assert all(len({division.part_of[k] for k in range(len(groups)) if groups[k] == g}) == 1 for g in groups)
    order = np.random.default_rng(0).permutation(len(images))
    shuffled = annotations([labels[k] for k in order], names=[f'{k}.png' for k in order])
    again = parts(shuffled, groups=[groups[k] for k in order], val=0.25, seed=seed)
    assert again.part_of.tolist() == division.part_of[order].tolist()
    assert again.fingerprint == division.fingerprint
    if max(map(len, labels)) <= 1 and len(set(groups)) == len(groups):
        for label in range(5):
            found = [part for part, has in zip(division.part_of, labels, strict=True) if label in has]
            assert len(found) < 2 or set(found) == {0, 1}


def test_a_large_group_goes_where_it_fits():
    """Twenty frames of a video among 40 images: validation wants 8 images."""
    division = parts(annotations([[0]] * 40), groups=[0] * 20 + list(range(1, 21)))
    assert set(division.part_of[:20]) == {0} and division.part_of.sum() == 8


def test_the_division_is_the_same_on_every_machine():
    """Written down once; another seed gives another; a new image of a new class moves no other image."""
    labels = [[k % 3] for k in range(12)]
    division = parts(annotations(labels))
    assert np.flatnonzero(division.part_of).tolist() == [0, 4, 8]  # of each class the last by blake2b of '0/<name>'
    assert division.fingerprint == '3ff49209'
    assert parts(annotations(labels), seed=1).fingerprint != division.fingerprint
    more = parts(annotations([*labels, [4]]))
    assert more.part_of[:12].tolist() == division.part_of.tolist()


@pytest.mark.parametrize(
    ('split', 'part', 'words'),
    [
        (dict(vall=0.2), 'train', 'split has vall: it takes val, test, seed'),
        (dict(val=20), 'train', 'split has val 20 and test 0.0: expected shares of the images, from 0 to below 1'),
        (dict(val='0.2'), 'train', "split has val '0.2' and"),
        (dict(val=True), 'train', 'split has val True'),
        (dict(val=0.6, test=0.5), 'train', 'split gives 110% of the images to val and test'),
        (dict(val=0), 'train', 'split gives 0% of the images'),
        (dict(seed=0.5), 'train', 'the seed 0.5: expected an integer'),
        (dict(), None, 'split is given with part None: choose the part to use, one of train, val, test'),
        (dict(), 'valid', "part 'valid'"),
        (dict(), 'test', "part is 'test', and split gives it no image: add test=0.1"),
    ],
)
def test_wrong_splits(split, part, words):
    with pytest.raises(ConfigError, match=words):
        checked_split(split, part)


class Made(DetDataset):
    labels = [[k % 2] for k in range(9)] + [[2]]

    def read(self):
        return annotations(self.labels, categories='abc')


class Parted(Made):
    has_parts = True

    def read(self):
        return annotations(self.labels[: 3 if self.part == 'val' else None], categories='abc')


def built(root, kind=Made, **kwargs):
    return kind(ann_file=str(root), data_prefix=dict(img=str(root)), **kwargs)


def test_the_parts_of_a_data_set(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('frdet.datasets.base.print_log', lambda text, level=0, **_: level or said.append(text))
    split = dict(val=0.3, test=0.1)
    whole = built(tmp_path)
    sets = [built(tmp_path, part=part, split=split, test_mode=True) for part in ('train', 'val', 'test')]
    ids = [[one.get_data_info(k)['img_id'] for k in range(len(one))] for one in sets]
    assert sorted(sum(ids, [])) == list(range(10)) and list(map(len, ids)) == [6, 2, 2]  # two classes in each
    for one, members in zip(sets, ids, strict=True):
        assert [image['id'] for image in one.annotations().images] == members
        assert one.metainfo == whole.metainfo
        records = [one.get_data_info(k) for k in range(len(one))]
        assert [record['gt_labels'].tolist() for record in records] == [Made.labels[k] for k in members]
    line = f"{tmp_path}, part train: 6 images, 6 boxes, fewest of 'c' (1); division "
    assert said[0].startswith(line)
    assert said[0].endswith(' of 10 images (val 0.3, test 0.1, seed 0). Only in training, because of too few images: c')
    division = said[0].removeprefix(line).split()[0]
    assert len(division) == 8 and all(division in text for text in said) and len(said) == 3
    assert len({one.source for one in (whole, *sets)}) == 4
    assert sets[0].source == built(tmp_path, part='train', split=split).source


def test_parts_of_a_format(tmp_path):
    assert [len(built(tmp_path, Parted, part=part)) for part in (None, 'train', 'val')] == [10, 10, 3]
    divided = built(tmp_path, Parted, part='val', split=dict(val=0.5))
    assert len(divided) in (4, 5)
    with pytest.raises(ConfigError, match="part is 'val', and Made has no parts: divide its images by split"):
        built(tmp_path, part='val')


def test_an_empty_part(tmp_path, monkeypatch):
    monkeypatch.setattr(Made, 'labels', [[0]])
    with pytest.raises(DataError, match='part val has no image: split divides only 1 images. Add images'):
        built(tmp_path, part='val', split={})
