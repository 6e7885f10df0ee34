"""A data set on a reader of a user's: what it does with what the reader gives, and with images it cannot read."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader, Subset

from frdet.datasets import Annotations, DetDataset
from frdet.datasets.base import categories_of
from frdet.datasets.loaders import ResumableLoader
from frdet.errors import BrokenImageError, DataError, defined
from frdet.evaluation import CocoMetric
from frdet.registry import DATASETS
from tests.evaluation.test_truth import evaluated, perfect

NAMES = [f'{k}.png' for k in range(6)]


@DATASETS.register_module(force=True)
class FolderDataset(DetDataset):
    """The images of a folder by name, each with a box of 4 x 3 pixels; odd ones are dogs."""

    reads = 0

    def read(self):
        type(self).reads += 1
        names = sorted(path.name for path in Path(self.ann_file).iterdir())
        return Annotations(
            images=[dict(file_name=name, height=6, width=8) for name in names],
            categories={'cat': 'C', 'dog': 'D'},
            boxes=[[1, 1, 5, 4]] * len(names),
            image_index=range(len(names)),
            category_index=[k % 2 for k in range(len(names))],
        )


@pytest.fixture
def root(tmp_path):
    for folder in ('one', 'two'):
        (tmp_path / folder).mkdir()
        for name in NAMES:
            Image.new('RGB', (8, 6)).save(tmp_path / folder / name)
    return tmp_path


def built(root, folder='one', kind=FolderDataset, **kwargs):
    return kind(data_root=str(root), ann_file=folder, data_prefix=dict(img=folder), **kwargs)


def test_records_classes_and_subsets(root):
    dataset = built(root, metainfo=dict(classes=['dog']), indices=[3, 0])
    assert (dataset.metainfo['classes'], dataset.cat_ids) == (('dog',), ['D'])
    record = dataset.get_data_info(0)
    assert (record['img_id'], record['img_path']) == ('3.png', str(root / 'one' / '3.png'))
    np.testing.assert_array_equal(record['gt_bboxes'], [[1, 1, 5, 4]])
    assert record['gt_labels'].tolist() == [0] and dataset.get_cat_ids(1) == []
    config = dict(type='FolderDataset', data_root=str(root), ann_file='one', data_prefix=dict(img='gone'))
    assert categories_of(config) == categories_of(dataset) == {'cat': 'C', 'dog': 'D'}
    with pytest.raises(DataError, match='ToyDataset is no DetDataset'):
        categories_of(type('ToyDataset', (), {})())


class NoReader(DetDataset):
    pass


class Wrong(FolderDataset):
    """Boxes with a score behind."""

    def read(self):
        return Annotations(**{**vars_of(super().read()), 'boxes': [[1, 1, 5, 4, 0.5]] * 6})


class Other(FolderDataset):
    def read(self):
        return {'images': []}


class Text(FolderDataset):
    def read(self):
        return float('12,5')


def vars_of(read):
    return {name: getattr(read, name) for name in ('images', 'categories', 'image_index', 'category_index')}


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        (NoReader, 'NoReader in .*test_base.py cannot read .*: it has no method read'),
        (Wrong, r'boxes is an array \(6, 5\) of float64: expected numbers, \(6, 4\)'),
        (Other, r'returns a dict: expected frdet\.datasets\.Annotations'),
        (Text, "could not convert string to float: '12,5'"),
    ],
)
def test_a_reader_that_is_wrong_is_named(root, kind, words):
    with pytest.raises(DataError, match=words) as error:
        built(root, kind=kind)
    assert str(error.value).startswith(f'{kind.__name__} in {__file__} cannot read {root}/one: ')


def test_annotations_are_read_once_where_they_are_tested(root):
    """And reach no worker process; a training set keeps none."""
    FolderDataset.reads = 0
    dataset = built(root, test_mode=True)
    assert evaluated(CocoMetric(), dataset, perfect(dataset))['coco/bbox_mAP'] == pytest.approx(1)
    assert evaluated(CocoMetric(ann_file=f'{root}/one'), dataset, perfect(dataset))['coco/bbox_mAP'] == pytest.approx(1)
    assert FolderDataset.reads == 1
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset), built(root)):
        assert other._annotations is None and len(other) == 6


@pytest.mark.parametrize(
    'wrapper',
    [
        dict(type='RepeatDataset', times=2),
        dict(type='ClassBalancedDataset', oversample_thr=1e-3),
        lambda one: Subset(one, [0, 5]),
        lambda one: DATASETS.build(dict(type='ConcatDataset', datasets=[one, built(one.data_root, 'two')])),
        lambda one: DATASETS.build(
            dict(type='ConcatDataset', datasets=[built(one.data_root, indices=k, test_mode=True) for k in (2, -3)])
        ),
    ],
    ids=['repeated', 'balanced', 'subset', 'joined', 'two parts of one'],
)
def test_the_truth_through_wrappers(root, wrapper):
    """AP is 1 with the boxes of all images that are tested, and less without those of one image."""
    one = built(root, test_mode=True)
    wrapped = wrapper(one) if callable(wrapper) else DATASETS.build({**wrapper, 'dataset': one})
    if isinstance(wrapped, Subset):
        wrapped.metainfo = one.metainfo
        samples = [perfect(one)[k] for k in wrapped.indices]
    else:
        samples = perfect(wrapped)
    assert evaluated(CocoMetric(), wrapped, samples)['coco/bbox_mAP'] == pytest.approx(1)
    for sample in samples:
        if sample['img_path'] == samples[0]['img_path']:
            sample['pred_instances'] = {key: value[:0] for key, value in sample['pred_instances'].items()}
    assert evaluated(CocoMetric(), wrapped, samples)['coco/bbox_mAP'] < 0.95


def test_a_metric_for_each_of_two_sets(root):
    """What is found in the other set is wrong here, and must not count. Both have the same image ids."""
    joined = DATASETS.build(
        dict(type='ConcatDataset', datasets=[built(root, name, test_mode=True) for name in ('one', 'two')])
    )
    samples = perfect(joined)
    for folder, wrong in (('one', samples[6:]), ('two', samples[:6])):
        worse = copy.deepcopy(samples)
        for sample in worse:
            if any(sample['img_path'] == other['img_path'] for other in wrong):
                sample['pred_instances']['bboxes'] += 30
        assert evaluated(CocoMetric(ann_file=f'{root}/{folder}'), joined, worse)['coco/bbox_mAP'] == pytest.approx(1)
        assert evaluated(CocoMetric(), joined, worse)['coco/bbox_mAP'] < 0.9


def pixels_alone(results):
    """A pipeline's end that packs no sample."""
    return results['img_path'][-5:], results['img'].shape


@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_broken_image_of_a_pipeline_that_packs_no_sample(root, num_workers):
    """The loader of a training says with which batch it was; without that loader nobody could count it."""
    for name in ('1.png', '4.png'):
        (root / 'one' / name).write_bytes(b'no image')
    dataset = built(root, pipeline=[dict(type='LoadImage'), pixels_alone])
    wrapped = DATASETS.build(dict(type='RepeatDataset', times=2, dataset=dataset))
    with pytest.raises(BrokenImageError, match='1.png'):
        wrapped[1]
    loader = ResumableLoader(
        DataLoader(wrapped, batch_size=3, num_workers=num_workers, collate_fn=pseudo_collate), seed=0
    )
    loader.start(seed=0, rank=0, iteration=0, skip=0)
    seen, said = [], []
    for names, _ in loader:
        seen.append(list(names))
        said.append([message.split(' (id')[0][-5:] for message in loader.broken_images])
    assert seen == 2 * [['0.png', '2.png', '2.png'], ['3.png', '5.png', '5.png']]
    assert said == 2 * [['1.png'], ['4.png']]


def test_a_class_without_a_file_is_named_alone():
    assert defined(type('Cell', (), {'__module__': 'builtins'})) == 'Cell'
