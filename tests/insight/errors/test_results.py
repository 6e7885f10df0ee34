import json

import pytest

from frdet.errors import DataError
from frdet.insight.errors import read_results

TRUTH = {
    'images': [
        dict(id=7, file_name='b.jpg', height=40, width=60),
        dict(id=3, file_name='a.jpg', height=40, width=60),
        dict(id=9, file_name='c.jpg', height=40, width=60),
    ],
    'categories': [dict(id=5, name='dog'), dict(id=2, name='cat'), dict(id=8, name='cow')],
    'annotations': [
        dict(image_id=7, category_id=5, bbox=[1, 2, 10, 20], iscrowd=1),
        dict(image_id=3, category_id=2, bbox=[0, 0, 4, 4]),
        dict(image_id=9, category_id=2, bbox=[0, 0, 4, 4]),
        dict(image_id=3, category_id=8, bbox=[0, 0, 4, 4]),
    ],
}
FOUND = [
    dict(image_id=7, category_id=2, bbox=[1, 2, 3, 4], score=0.5),
    dict(image_id=9, category_id=2, bbox=[], score=1),
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / 'truth.json').write_text(json.dumps(TRUTH))
    (tmp_path / 'found.json').write_text(json.dumps(FOUND))
    return tmp_path / 'truth.json', tmp_path / 'found.json'


def test_images_and_classes_that_were_evaluated(files):
    results = read_results(*files, img_ids=[7, 3], classes=['dog', 'N/A', 'cat'])
    assert [image['id'] for image in results.images] == [3, 7]
    assert (results.classes, results.cat_ids) == (['dog', 'cat'], [5, 2])
    assert results.truth.image.tolist() == [1, 0] and results.truth.label.tolist() == [0, 1]
    assert results.truth.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 4, 4]]
    assert results.truth.crowd.tolist() == [True, False]
    assert [array.tolist() for array in results.found] == [[1], [1], [[1, 2, 4, 6]], [0.5]]


@pytest.mark.parametrize(
    ('content', 'words'),
    [('{', 'is not JSON'), ('{}', 'a list of detections'), ('[{"image_id": 7, "category_id": 2}]', 'bbox and score')],
)
def test_files_that_are_wrong(files, content, words):
    files[1].write_text(content)
    with pytest.raises(DataError, match=words):
        read_results(*files)


def test_file_that_is_gone(files):
    files[1].unlink()
    with pytest.raises(DataError, match=r'found\.json cannot be read'):
        read_results(*files)
