"""The images that are tested, and the annotations they are held against, are of the same pictures."""

import copy
import json
import logging

import pytest
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from PIL import Image
from torch.utils.data import Subset

from frdet.datasets import CocoDataset
from frdet.errors import ConfigError, DataError
from frdet.evaluation import CocoMetric
from frdet.registry import DATASETS
from tests.evaluation.test_coco_metric import sample

CLASSES = ('cat', 'dog')
SIDE = 100


def content_of(names, first=1, seed=0, ids=(7, 9)):
    """An image for each name, with a cat and a dog of 40 pixels; ``seed`` moves them."""
    images = [dict(id=first + k, file_name=name, width=SIDE, height=SIDE) for k, name in enumerate(names)]
    annotations = [
        dict(image_id=image['id'], category_id=ids[label], bbox=[10 * label + k + seed, 5 + seed, 40, 40])
        for k, image in enumerate(images)
        for label in (0, 1)
    ]
    categories = [dict(id=i, name=name) for i, name in zip(ids, CLASSES, strict=True)]
    return dict(images=images, annotations=annotations, categories=categories)


@pytest.fixture
def write(tmp_path):
    def write(name, content, folder='images', **kwargs):
        """The annotation file and a data set on it."""
        path = tmp_path / f'{name}.json'
        path.write_text(json.dumps(content))
        (tmp_path / folder).mkdir(exist_ok=True)
        data = dict(data_root=str(tmp_path), ann_file=path.name, data_prefix=dict(img=folder), test_mode=True, **kwargs)
        return path, CocoDataset(**data)

    return write


@pytest.fixture
def lines():
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    MMLogger.get_instance('tested').addHandler(handler)
    return said


def perfect(dataset):
    """Detections equal to the boxes of a data set, as a test hands them over."""
    records = [dataset.get_data_info(i) for i in range(len(dataset))]
    samples = []
    for r in records:
        scores = [0.9 - 0.1 * k for k in range(len(r['gt_labels']))]
        samples.append({**sample(r['img_id'], r['gt_bboxes'], scores, r['gt_labels']), 'img_path': r['img_path']})
    return samples


def evaluated(metric, dataset, samples):
    metric.use_dataset(dataset)
    metric.dataset_meta = dataset.metainfo
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_the_truth_is_that_of_the_data_set(write):
    path, dataset = write('mine', content_of('ab'))
    metric = CocoMetric()
    assert evaluated(metric, dataset, perfect(dataset))['coco/bbox_mAP'] == pytest.approx(1)
    assert metric.coco_file(path.parent) == str(path)


def test_without_any_truth():
    with pytest.raises(ConfigError, match='has no ground truth: give ann_file'):
        CocoMetric().compute_metrics([])
    with pytest.raises(ConfigError, match=rf'the tested Own in {__file__} is no DetDataset'):
        CocoMetric().use_dataset(Own([]))


class Own(BaseDataset):
    """A data set of a user's."""

    METAINFO = dict(classes=CLASSES)

    def __init__(self, records):
        self.records = records
        super().__init__(serialize_data=False)

    def load_data_list(self):
        return copy.deepcopy(self.records)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(names='ab', first=1001), 'has no image 1'),
        (dict(names='xyz'), 'the image of that id there is x'),
        (dict(names='ab'), 'has no image 3'),  # a part of the images
        (dict(names=['one/a', 'one/b', 'one/x']), 'the image of that id there is one/x'),
    ],
    ids=['other ids', 'other pictures', 'a part', 'one other picture'],
)
def test_a_file_of_other_images_is_refused(write, change, words):
    path, _ = write('other', content_of(**change))
    mine, dataset = write('mine', content_of('abc'))
    with pytest.raises(DataError) as error:
        CocoMetric(ann_file=str(path)).use_dataset(dataset)
    assert words in str(error.value) and str(path) in str(error.value) and str(mine) in str(error.value)
    # A data set of a user's has no file of annotations to compare with: its records have the same names.
    own = Own([{k: r[k] for k in ('img_id', 'img_path')} for r in map(dataset.get_data_info, range(3))])
    with pytest.raises(DataError, match=words.split()[-1]):
        CocoMetric(ann_file=str(path)).use_dataset(own)
    # Without a data set it is found at the first evaluation.
    metric = CocoMetric(ann_file=str(path))
    metric.dataset_meta = dataset.metainfo
    metric.process({}, perfect(dataset))
    with pytest.raises(DataError, match=words.split()[-1]):
        metric.evaluate(3)


def test_images_of_equal_names_and_other_sizes(write):
    other = content_of('ab')
    other['images'][1]['width'] = 90
    path, _ = write('other', other)
    _, dataset = write('mine', content_of('ab'))
    with pytest.raises(DataError, match='Image 2 is 100x100 in .*mine.json and 90x100 in .*other.json'):
        CocoMetric(ann_file=str(path)).use_dataset(dataset)


def test_images_of_equal_names_and_other_boxes(write, lines):
    """In every image: other pictures. In one of three: the truth was corrected, which the log says."""
    path, _ = write('other', content_of('abc', seed=3))
    _, dataset = write('mine', content_of('abc'))
    with pytest.raises(DataError, match='differ in the boxes of all 3 images with boxes'):
        CocoMetric(ann_file=str(path)).use_dataset(dataset)
    corrected = content_of('abc')
    corrected['annotations'][0]['bbox'] = [0, 0, 40, 40]
    path, _ = write('other', corrected)
    CocoMetric(ann_file=str(path)).use_dataset(dataset)
    assert any('differ in the boxes of 1 of 3 images: the latter count' in line for line in lines)


@pytest.mark.parametrize('name', ['a.png', 'images/a.png', 'C:\\data\\a.png', 'http://host/upload/a.png'])
def test_a_larger_file_with_other_folders_in_its_names(write, name):
    larger = content_of(['a.png', 'b.png', 'c.png'])
    larger['images'][0]['file_name'] = name
    path, _ = write('larger', larger)
    _, dataset = write('mine', content_of(['a.png', 'b.png']))
    figures = evaluated(CocoMetric(ann_file=str(path)), dataset, perfect(dataset))
    assert figures['coco/bbox_mAP'] == pytest.approx(1)


def test_a_part_of_the_data_set(write):
    _, dataset = write('mine', content_of('abcd'), indices=[1, 3])
    assert evaluated(CocoMetric(), dataset, perfect(dataset))['coco/bbox_mAP'] == pytest.approx(1)
    _, dataset = write('mine', content_of('abcd'))
    part = Subset(dataset, [0, 2])
    part.metainfo = dataset.metainfo
    assert evaluated(CocoMetric(), part, [perfect(dataset)[k] for k in (0, 2)])['coco/bbox_mAP'] == pytest.approx(1)


@pytest.mark.parametrize('first', [1, 101], ids=['ids overlap', 'ids apart'])
@pytest.mark.parametrize('ids', [(7, 9), (1, 2), (9, 7)])
def test_joined_data_sets(write, first, ids, tmp_path):
    """Evaluated together, and each by a metric of its own; the image ids of both may begin at 1."""
    one_file, one = write('one', content_of('abc'), 'one')
    two_file, two = write(
        'two', content_of('abcde', first=first, seed=20, ids=ids), 'two', metainfo=dict(classes=CLASSES)
    )
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[one, two]))
    samples = perfect(one) + perfect(two)
    out = tmp_path / 'results.json'
    assert evaluated(CocoMetric(outfile=str(out)), joined, samples)['coco/bbox_mAP'] == pytest.approx(1)
    records = json.loads(out.read_text())
    assert {r['category_id'] for r in records[:6]} == {7, 9} and {r['category_id'] for r in records[6:]} == {*ids}
    for path, count in ((one_file, 3), (two_file, 5)):
        metric = CocoMetric(ann_file=str(path))
        # What is found in the other part alone is wrong here: it must not count.
        worse = [{**s, 'pred_instances': copy.deepcopy(s['pred_instances'])} for s in samples]
        for s in worse[3:] if count == 3 else worse[:3]:
            s['pred_instances']['bboxes'] += 30
        assert evaluated(metric, joined, worse)['coco/bbox_mAP'] == pytest.approx(1)


def test_joined_data_sets_of_one_image(write):
    _, one = write('one', content_of('ab'))
    _, two = write('two', content_of('bc', first=2))
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[one, two]))
    with pytest.raises(DataError, match='both list image 2'):
        CocoMetric().use_dataset(joined)


@pytest.mark.parametrize(
    'wrapper', [dict(type='RepeatDataset', times=3), dict(type='ClassBalancedDataset', oversample_thr=1e-3)]
)
def test_wrapped_data_sets(write, wrapper):
    _, dataset = write('mine', content_of('abc'))
    wrapped = DATASETS.build({**wrapper, 'dataset': dataset})
    assert evaluated(CocoMetric(), wrapped, perfect(wrapped))['coco/bbox_mAP'] == pytest.approx(1)


def test_a_class_that_the_tested_file_lacks(write):
    """It has no object and so no figure; the others keep theirs, whatever is taken for it."""
    content = content_of('abc')
    content['categories'] = content['categories'][:1]
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] == 7]
    _, dataset = write('mine', content, metainfo=dict(classes=('dog', 'cat')))
    samples = perfect(dataset)
    assert samples[0]['pred_instances']['labels'].tolist() == [1]
    found = sample(1, [[0, 5, 40, 45], [0, 0, 50, 50]], [0.9, 0.95], [1, 0])['pred_instances']
    samples[0]['pred_instances'] = found
    metric = CocoMetric()
    assert evaluated(metric, dataset, samples)['coco/bbox_mAP'] == pytest.approx(1)
    assert metric.evaluation.cat_ids == [7]


def test_an_evaluator_that_lacks_a_class_of_the_data(write):
    other = content_of('abc')
    other['categories'][1]['name'] = 'bird'
    path, _ = write('other', other)
    _, dataset = write('mine', content_of('abc'))
    metric = CocoMetric(ann_file=str(path))
    with pytest.raises(DataError, match="other.json has no category 'dog'"):
        evaluated(metric, dataset, perfect(dataset))


def test_ignored_objects_count_neither_way(write, lines):
    """The dogs are to be ignored: found or not, AP is that of the cats."""
    content = content_of('abc')
    for annotation in content['annotations']:
        annotation['ignore'] = int(annotation['category_id'] == 9)
    _, dataset = write('mine', content)
    everything = perfect(dataset)
    cats = [{**s, 'pred_instances': {k: v[:1] for k, v in s['pred_instances'].items()}} for s in perfect(dataset)]
    for backend in ('hotcoco', 'pycocotools'):
        for samples in (everything, cats):
            figures = evaluated(CocoMetric(backend=backend), dataset, samples)
            assert figures['coco/bbox_mAP'] == figures['coco/bbox_AR@100'] == pytest.approx(1)
    assert any('3 boxes are marked with "ignore"' in line for line in lines)


def test_what_a_reader_of_the_figures_should_know(write, lines):
    content = content_of('abc')
    content['annotations'][0]['area'] = 0
    content['annotations'][1]['bbox'] = [150, 5, 40, 40]
    CocoMetric().use_dataset(write('mine', content)[1])
    said = '\n'.join(lines)
    assert '1 boxes have an area that is 0 or negative' in said
    assert '1 boxes have no area inside their image' in said
    assert 'every metric value will be -1' not in said
    for annotation in content['annotations']:
        annotation['iscrowd'] = 1
    CocoMetric().use_dataset(write('crowds', content)[1])
    assert 'no object of the tested classes, so every metric value will be -1' in lines[-1]


@pytest.mark.parametrize('kind', ['no key', 'empty list', 'a folder of images'])
def test_without_annotations_there_are_no_values(write, lines, tmp_path, kind):
    """Not twelve times -1: nothing was measured. The detections are written."""
    content = content_of(['a.png', 'b.png'])
    content['annotations'] = []
    if kind == 'no key':
        del content['annotations']
    _, dataset = write('images', content)
    if kind == 'a folder of images':
        for name in ('a.png', 'b.png'):
            Image.new('RGB', (SIDE, SIDE)).save(tmp_path / 'images' / name)
        folder = dict(type='ImageFolder', data_prefix=dict(img=str(tmp_path / 'images')), test_mode=True)
        dataset = DATASETS.build({**folder, 'metainfo': dict(classes=CLASSES)})
    first = dataset.get_data_info(0)
    found = {**sample(first['img_id'], [[10, 5, 50, 45]], [0.9], [1]), 'img_path': first['img_path']}
    metric = CocoMetric(outfile=str(tmp_path / 'out.json'))
    assert evaluated(metric, dataset, [found]) == {}
    assert metric.evaluation is None
    (record,) = json.loads((tmp_path / 'out.json').read_text())
    assert record['bbox'] == [10, 5, 40, 40] and record['image_id'] == first['img_id']
    assert [line for line in lines if 'has no annotation, so there is nothing to compute' in line]
    assert not [line for line in lines if 'will be -1' in line]


def test_a_folder_joined_to_labelled_images_has_only_negatives(write, tmp_path):
    """Then the whole is labelled: a detection in the folder is a false one."""
    _, labelled = write('mine', content_of(['a.png']))
    (tmp_path / 'empty').mkdir()
    Image.new('RGB', (SIDE, SIDE)).save(tmp_path / 'empty/b.png')
    folder = dict(type='ImageFolder', data_prefix=dict(img=str(tmp_path / 'empty')), test_mode=True)
    joined = DATASETS.build(
        dict(type='ConcatDataset', datasets=[labelled, DATASETS.build({**folder, 'metainfo': dict(classes=CLASSES)})])
    )
    samples = perfect(joined)
    assert evaluated(CocoMetric(), joined, samples)['coco/bbox_mAP'] == pytest.approx(1)
    negative = joined.get_data_info(1)
    wrong = sample(negative['img_id'], [[0, 0, 9, 9]] * 2, [0.99] * 2, [0, 1])
    samples[1] = {**wrong, 'img_path': negative['img_path']}
    # Each class has one true and a better false detection: precision 1/2 at every recall.
    assert evaluated(CocoMetric(), joined, samples)['coco/bbox_mAP'] == pytest.approx(0.5)


def test_the_runner_hands_the_data_set_over(write, tmp_path):
    """Before the first step; see the tests of the tools for a run."""
    from frdet.engine.runner import _with_data_set

    Image.new('RGB', (SIDE, SIDE)).save(tmp_path / 'a.png')
    _, dataset = write('mine', content_of('a'))
    metric = CocoMetric()

    class Loop:
        evaluator = type('Evaluator', (), {'metrics': [object(), metric]})
        dataloader = type('Loader', (), {'dataset': dataset})

    _with_data_set(Loop)
    assert metric.coco_file(tmp_path).endswith('mine.json')
