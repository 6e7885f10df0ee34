import json
import multiprocessing
import os
import subprocess

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from frdet.datasets.shapes import CLASSES, ShapesDataset, write_shapes
from frdet.datasets.shapes import dataset as module
from frdet.datasets.shapes.drawing import draw_image
from frdet.errors import ConfigError, DataError
from tests import warm

SMALL = dict(num_train=4, num_val=3, image_size=(40, 64))


def files_of(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def test_layout_is_cocos(tmp_path):
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    assert sorted(os.listdir(root)) == ['annotations', 'train2017', 'val2017']
    for split, count in (('train', 4), ('val', 3)):
        coco = COCO(root / f'annotations/instances_{split}2017.json')
        assert len(coco.imgs) == count
        assert [c['name'] for c in coco.loadCats(sorted(coco.getCatIds()))] == list(CLASSES)
        for image in coco.imgs.values():
            with Image.open(root / f'{split}2017' / image['file_name']) as picture:
                assert picture.size == (image['width'], image['height'])
            assert min(image['height'], image['width']) >= 40
            assert max(image['height'], image['width']) <= 64
            for item in coco.loadAnns(coco.getAnnIds(imgIds=image['id'])):
                x, y, w, h = item['bbox']
                assert 0 <= x < x + w <= image['width']
                assert 0 <= y < y + h <= image['height']
                assert 0 < item['area'] <= w * h
    assert list(tmp_path.iterdir()) == [root]  # nothing temporary stays


def test_the_splits_have_other_images_and_other_ids(tmp_path):
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    pictures = {path.name: path.read_bytes() for path in root.rglob('*.jpg')}
    assert len(pictures) == len(set(pictures.values())) == 7
    both = [json.loads(path.read_text()) for path in root.rglob('*.json')]
    for section in ('images', 'annotations'):
        ids = [item['id'] for content in both for item in content[section]]
        assert len(ids) == len(set(ids)) >= 7


def test_boxes_touch_the_mask_on_every_side(tmp_path):
    """Drawn again from the same seed; a slow search for the outermost pixels gives the box."""
    root = write_shapes(tmp_path / 'shapes', **SMALL, seed=5)
    content = json.loads((root / 'annotations/instances_train2017.json').read_text())
    image = content['images'][1]
    rng = np.random.default_rng([5, 0, 1])
    rng.integers(40, 65, size=2)
    _, shapes = draw_image(rng, image['height'], image['width'], module.MAX_OBJECTS)
    items = [a for a in content['annotations'] if a['image_id'] == image['id']]
    assert len(items) == len(shapes)
    for item, shape in zip(items, shapes, strict=True):
        pixels = [(x, y) for y in range(image['height']) for x in range(image['width']) if shape.mask[y, x]]
        xs, ys = zip(*pixels, strict=True)
        assert item['bbox'] == [min(xs), min(ys), max(xs) + 1 - min(xs), max(ys) + 1 - min(ys)]
        assert item['area'] == len(pixels)
        assert item['category_id'] == shape.label + 1
        mask = COCO(root / 'annotations/instances_train2017.json').annToMask(item) > 0
        if isinstance(item['segmentation'], dict):  # the visible pixels themselves
            assert np.array_equal(mask, shape.mask)
        else:
            assert (mask & shape.mask).sum() > 0.8 * (mask | shape.mask).sum()


def test_masks_are_of_both_kinds(tmp_path):
    """A shape that is seen as a whole has polygons, unless it is a ring; all others have run lengths."""
    root = write_shapes(tmp_path / 'shapes', **{**SMALL, 'num_train': 12})
    items = json.loads((root / 'annotations/instances_train2017.json').read_text())['annotations']
    kinds = {(CLASSES[item['category_id'] - 1] == 'ring', type(item['segmentation'])) for item in items}
    assert kinds == {(True, dict), (False, dict), (False, list)}
    kwargs = dict(ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017'), with_masks=True)
    assert len(ShapesDataset(data_root=root, **kwargs)) == 12
    for item in items:
        del item['segmentation']
    content = json.loads((root / 'annotations/instances_train2017.json').read_text())
    (root / 'annotations/instances_train2017.json').write_text(json.dumps({**content, 'annotations': items}))
    with pytest.raises(DataError, match=r'objects have no mask.* Delete the folder .*shapes, and the shapes are drawn'):
        ShapesDataset(data_root=root, **kwargs)


def test_the_seed_decides_and_counts_do_not(tmp_path):
    first = files_of(write_shapes(tmp_path / 'a', **SMALL))
    assert files_of(write_shapes(tmp_path / 'b', **SMALL)) == first
    assert files_of(write_shapes(tmp_path / 'c', **SMALL, seed=1)) != first
    more = files_of(write_shapes(tmp_path / 'd', **{**SMALL, 'num_train': 6}))
    pictures = {name for name in first if name.endswith('.jpg')}
    assert all(more[name] == first[name] for name in pictures)


def test_what_is_drawn_is_kept(tmp_path):
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    (root / 'mark').touch()
    write_shapes(root, **SMALL)
    assert (root / 'mark').exists()


def test_something_else_is_not_touched(tmp_path):
    root = write_shapes(tmp_path / 'shapes', **SMALL)
    before = files_of(root)
    with pytest.raises(DataError, match="'train': 4.*'train': 5.*delete the folder"):
        write_shapes(root, **{**SMALL, 'num_train': 5})
    assert files_of(root) == before
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'mine.txt').write_text('mine')
    with pytest.raises(DataError, match='holds no drawn shapes'):
        write_shapes(tmp_path / 'other', **SMALL)
    assert files_of(tmp_path / 'other') == {'mine.txt': b'mine'}
    with pytest.raises(DataError, match='holds no drawn shapes'):
        write_shapes(tmp_path / 'other' / 'mine.txt', **SMALL)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'draw_image', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / 'shapes', **SMALL)
    assert list(tmp_path.iterdir()) == []


def _draw(root, barrier, queue):
    barrier.wait()
    queue.put(str(write_shapes(root, **SMALL)))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context('fork')
    barrier, queue = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_draw, args=(tmp_path / 'shapes', barrier, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [str(tmp_path / 'shapes')] * 2
    for worker in workers:
        worker.join()
    assert files_of(tmp_path / 'shapes') == files_of(write_shapes(tmp_path / 'alone', **SMALL))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['alone', 'shapes']


@pytest.mark.parametrize(
    'wrong', [dict(num_train=0), dict(num_val=-1), dict(image_size=(8, 64)), dict(image_size=(64, 40))]
)
def test_wrong_arguments(tmp_path, wrong):
    with pytest.raises(ConfigError, match='expected at least 1 image'):
        write_shapes(tmp_path / 'shapes', **{**SMALL, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(DataError, match='cannot be written'):
        write_shapes(tmp_path / 'file' / 'shapes', **SMALL)


@pytest.mark.long
def test_command_line(tmp_path):
    words = ['-m', 'frdet.datasets.shapes', tmp_path / 'shapes', '--train', '2', '--val', '1']
    done = subprocess.run([warm.python(), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'2 + 1 images of drawn shapes in {tmp_path}/shapes\n'
    assert len(list((tmp_path / 'shapes' / 'train2017').iterdir())) == 2
    again = subprocess.run([warm.python(), *words, '--seed', '3'], capture_output=True, text=True, timeout=120)
    assert again.returncode == 1
    assert again.stderr.startswith('error: ')
    assert 'Traceback' not in again.stderr


def build(root):
    return ShapesDataset(
        data_root=str(root), ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/')
    )


def test_draws_itself_once(tmp_path, monkeypatch):
    calls = []

    def few(root):
        calls.append(root)
        return write_shapes(root, num_train=3, num_val=2, image_size=(40, 48))

    monkeypatch.setattr(module, 'write_shapes', few)
    for _ in range(2):
        dataset = build(tmp_path / 'shapes')
        assert len(dataset) == 3
        assert dataset.metainfo['classes'] == CLASSES
    assert calls == [str(tmp_path / 'shapes')]


def test_uses_what_was_drawn_otherwise(tmp_path):
    write_shapes(tmp_path / 'shapes', num_train=5, num_val=1, image_size=(40, 48))
    assert len(build(tmp_path / 'shapes')) == 5


def test_does_not_draw_over_something_else(tmp_path):
    (tmp_path / 'mine.txt').touch()
    with pytest.raises(DataError, match='No annotation file'):
        build(tmp_path)
