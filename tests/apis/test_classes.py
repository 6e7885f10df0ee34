"""num_classes=None is the number of classes of the data set wherever a model is built; names and category ids."""

import json

import pytest
import torch
from mmengine.config import Config

from frdet.apis import init_detector, train_detector
from frdet.apis import test_detector as evaluate_detector
from frdet.apis.classes import category_ids, declared_classes, resolve_num_classes
from frdet.config import check_config, load_config
from frdet.datasets import CocoDataset, write_shapes
from frdet.errors import ConfigError, DataError
from frdet.registry import DATASETS, DETECTORS
from tests.engine.toy import ROOT
from tests.rival import rival_scope  # noqa: F401  # a fixture
from tests.weights import NARROW_WORDS

CONFIG = ROOT / 'configs/quickstart/r18_fpn_shapes.py'
PLACE = 'model.roi_head.bbox_head.num_classes'
NAMES = ['circle', 'triangle', 'star']


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    """Three of the six classes, four small images, and no number."""
    root = write_shapes(tmp_path_factory.mktemp('shapes') / 'root', num_train=4, num_val=2)
    splits = ('train', 'val', 'test')
    return [
        f'{PLACE}=None',
        *NARROW_WORDS,
        *(f'{split}_dataloader.dataset.data_root={root}' for split in splits),
        *(f'{split}_dataloader.dataset.metainfo.classes=[{",".join(NAMES)}]' for split in splits),
        *(f'{split}_evaluator.ann_file={root}/annotations/instances_val2017.json' for split in splits[1:]),
        'model.roi_head.bbox_head.fc_channels=16',
        'train_dataloader.dataset.pipeline.1.short_side=64',
        'train_dataloader.dataset.filter_cfg.filter_empty_gt=False',
        'test_dataloader.dataset.pipeline.1.short_side=64',
        'train_cfg.max_epochs=1',
        'default_hooks.checkpoint.interval=1',
    ]


def test_training_testing_and_inference(rival_scope, options, tmp_path):  # noqa: F811
    """Beside another project, whose classes of frdet's names are not built."""
    cfg = load_config(CONFIG, options)
    check_config(cfg)
    assert cfg.model.roi_head.bbox_head.num_classes is None
    model = train_detector(cfg, work_dir=str(tmp_path), validate=False)
    assert model.roi_head.bbox_head.fc_cls.out_features == 4  # and the background
    path = tmp_path / 'epoch_1.pth'
    saved = torch.load(path, weights_only=True)['meta']
    assert list(saved['dataset_meta']['classes']) == NAMES
    assert 'num_classes=3' in saved['cfg']
    figures = evaluate_detector(load_config(CONFIG, options), str(path), work_dir=str(tmp_path / 'test'))
    assert 'coco/bbox_mAP' in figures
    assert saved['category_ids'] == [1, 3, 4]  # the second of the six is a square
    alone = init_detector(path, device='cpu')
    assert torch.equal(alone.rpn_head.rpn_cls.weight, model.rpn_head.rpn_cls.weight.cpu())
    assert alone.dataset_meta['category_ids'] == saved['category_ids']
    # A checkpoint says how many it has, whatever the data of the config are.
    nowhere = [o if '.data_root=' not in o else f'{o}/nowhere' for o in options if 'metainfo' not in o]
    loaded = init_detector(CONFIG, path, device='cpu', cfg_options=nowhere)
    assert loaded.roi_head.bbox_head.num_classes == 3
    assert list(loaded.dataset_meta['classes']) == NAMES


def test_without_a_checkpoint_the_config_or_the_annotations_tell(options):
    assert init_detector(CONFIG, device='cpu', cfg_options=options).roi_head.bbox_head.num_classes == 3
    all_six = [o for o in options if 'metainfo' not in o]
    assert init_detector(CONFIG, device='cpu', cfg_options=all_six).roi_head.bbox_head.num_classes == 6
    nowhere = [o if '.data_root=' not in o else f'{o}/nowhere' for o in all_six]
    with pytest.raises(ConfigError, match='num_classes is None, and the data set names no class'):
        init_detector(CONFIG, device='cpu', cfg_options=nowhere)


def test_every_head_is_filled_in_lists_too():
    """As of a cascade, and of a one-stage detector; what is a number stays one."""
    heads = [dict(type='A', num_classes=None), dict(type='B', num_classes=7), dict(type='C', num_classes=None)]
    cfg = Config(dict(model=dict(type='X', roi_head=dict(bbox_head=heads), head=dict(num_classes=None))))
    resolve_num_classes(cfg, lambda: NAMES)
    assert [head.num_classes for head in cfg.model.roi_head.bbox_head] == [3, 7, 3]
    assert cfg.model.head.num_classes == 3
    cfg.model.roi_head.bbox_head[2].num_classes = None
    with pytest.raises(ConfigError, match=r'model\.roi_head\.bbox_head\.2\.num_classes is None, and the data set'):
        resolve_num_classes(cfg, tuple)
    cfg.model.roi_head.bbox_head[2].num_classes = 3
    resolve_num_classes(cfg, lambda: pytest.fail('classes are read only where they are needed'))


def test_a_model_alone_needs_a_number(options):
    with pytest.raises(ConfigError, match='FCBBoxHead: num_classes is None, expected a positive number'):
        DETECTORS.build(load_config(CONFIG, options).model)


def test_a_number_is_not_changed(options, tmp_path):
    with pytest.raises(ConfigError, match=f'has 3 classes .*, the model has 6: set {PLACE}=3'):
        train_detector(load_config(CONFIG, [*options[1:], f'{PLACE}=6']), work_dir=str(tmp_path / 'w'))
    assert not (tmp_path / 'w').exists()


FILES = {
    'a': [(11, 'red'), (12, 'green')],
    'same': [(12, 'green'), (11, 'red')],
    'more': [(11, 'red'), (12, 'green'), (13, 'blue')],
    'other_id': [(11, 'red'), (14, 'green')],
    'other_name': [(12, 'blue'), (14, 'black')],
    'swapped': [(11, 'green'), (12, 'red')],
    'named_so': [(11, 'red'), (15, 'N/A')],
    'texts': [('r', 'red'), ('g', 'green')],
}


@pytest.fixture(scope='module')
def tested(tmp_path_factory):
    """A config that is tested on data sets of these files, joined where there are several, and repeated twice."""
    root = tmp_path_factory.mktemp('files')
    for name, categories in FILES.items():
        content = dict(images=[], annotations=[], categories=[dict(id=i, name=n) for i, n in categories])
        (root / f'{name}.json').write_text(json.dumps(content))

    def config(*names, **arguments):
        dataset, *more = (
            dict(type='CocoDataset', data_root=f'{root}/', ann_file=f'{name}.json', **arguments) for name in names
        )
        if more:
            dataset = dict(type='ConcatDataset', datasets=[dataset, *more])
        for times in (2, 3):
            dataset = dict(type='RepeatDataset', times=times, dataset=dataset)
        return Config(dict(test_dataloader=dict(dataset=dataset)))

    return config


@pytest.mark.parametrize(
    ('files', 'classes', 'expected'),
    [
        (['a'], ['red', 'green'], [11, 12]),
        (['a'], ['green', 'red'], [12, 11]),
        (['more'], ['blue'], [13]),
        (['a', 'same'], ['red', 'green'], [11, 12]),
        (['a', 'more'], ['red', 'green', 'blue'], [11, 12, 13]),
        (['a', 'missing'], ['red', 'green'], [11, 12]),
        (['more'], ['N/A', 'blue', 'N/A', 'red'], [None, 13, None, 11]),  # torchvision's labels have gaps
        (['named_so'], ['red', 'N/A'], [11, 15]),
        (['texts'], ['red', 'green'], ['r', 'g']),
        (['a', 'other_id'], ['red'], [11]),  # they disagree on a class that is not detected
    ],
)
def test_category_ids_are_those_of_the_annotations(tested, capsys, files, classes, expected):
    assert category_ids(tested(*files), classes) == expected
    assert 'Category ids are' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('files', 'words'),
    [(['a'], 'a.json lacks a class of the model'), (['missing'], 'missing.json cannot be read')],
)
def test_category_ids_that_no_file_tells(tested, capsys, files, words):
    assert category_ids(tested(*files), ['red', 'pink']) == [1, 2]
    said = capsys.readouterr().out
    assert 'Category ids are 1 for the first class and so on' in said and words in said
    assert category_ids(Config(), ['red']) == [1]


@pytest.mark.parametrize(
    ('files', 'words'),
    [
        (['a', 'other_id'], "'green' has the category id 12 in one test file, and 14 in .*other_id.json"),
        (['a', 'other_name'], "category id 12 is 'green' in one test file, 'blue' in .*other_name.json"),
        (['a', 'swapped'], 'has the category id 1[12] in one test file, and 1[12] in .*swapped.json'),
    ],
)
def test_joined_files_that_disagree_on_ids(tested, files, words):
    with pytest.raises(ConfigError, match=words):
        category_ids(tested(*files), ['red', 'green', 'blue', 'black'])


@DATASETS.register_module(force=True)
class DatasetWithNames(CocoDataset):
    METAINFO = {'classes': ('green', 'red')}


def test_declared_classes(tested, tmp_path):
    """As the data set has them that is built for training; see ``CocoDataset``."""
    assert declared_classes(tested('same')) == ('red', 'green')  # by ascending id
    assert declared_classes(tested('a', 'same')) == ('red', 'green')
    assert declared_classes(tested('missing', 'a')) == ('red', 'green')
    assert declared_classes(tested('missing', metainfo=dict(classes=['u', 'v']))) == ('u', 'v')
    (tmp_path / 'names.txt').write_text('green\nred\n')
    assert declared_classes(tested('a', metainfo=dict(classes=str(tmp_path / 'names.txt')))) == ('green', 'red')
    own = tested('a')
    own.test_dataloader.dataset.dataset.dataset.type = 'DatasetWithNames'
    assert declared_classes(own) == ('green', 'red')
    with pytest.raises(
        ConfigError, match=r'test_dataloader: datasets\.0 has the classes red, green, datasets\.1 has gr'
    ):
        declared_classes(tested('a', 'swapped'))
    for cfg, words in ((tested('missing'), 'missing.json cannot be read'), (Config(), 'no test_dataloader')):
        with pytest.raises(DataError, match=words):
            declared_classes(cfg)
    with pytest.raises(DataError, match=r"metainfo\.classes is 'names.txt', which is no file"):
        declared_classes(tested('a', metainfo=dict(classes='names.txt')))
