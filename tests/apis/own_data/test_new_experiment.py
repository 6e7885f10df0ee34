"""A folder of labelled images becomes a config that reads them right and trains as it stands."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from frdet.apis import new_experiment, train_detector
from frdet.apis.own_data.writing import base_for, epochs_for
from frdet.config import check_config, load_config
from frdet.datasets.formats.recognising import Found
from frdet.errors import ConfigError, DataError
from frdet.registry import DATASETS
from tests import own_data

ROOT = Path(__file__).resolve().parents[3]
TRAIN, VAL = own_data.draw(12), own_data.draw(6, seed=1)
# A model of seconds, and one step.
TINY = {
    'load_from': None,
    'model.backbone.depth': 18,
    'model.backbone.init_cfg': None,
    'model.backbone.norm.type': 'BN',
    'model.neck.in_channels': (64, 128, 256, 512),
    'model.neck.out_channels': 16,
    'model.neck.norm.type': 'BN',
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.roi_head.bbox_head.in_channels': 16,
    'model.roi_head.bbox_head.conv_channels': 16,
    'model.roi_head.bbox_head.norm.type': 'BN',
    'model.roi_head.bbox_head.fc_channels': 16,
    'model.roi_head.bbox_head.num_convs': 1,
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'default_hooks.report': None,
    'default_hooks.checkpoint.save_last': False,
    'default_hooks.checkpoint.interval': 100,
    'train_cfg.max_epochs': 1,
}


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(layout, **parts):
    return own_data.write(Path('data') / layout, layout, parts)


def built(cfg, part):
    return DATASETS.build(cfg[f'{part}_dataloader'].dataset)


def objects(*datasets):
    """How often each object is in data sets: class, and box in whole pixels."""
    found = Counter()
    for dataset in datasets:
        for record in map(dataset.get_data_info, range(len(dataset))):
            names = [dataset.metainfo['classes'][label] for label in record['gt_labels']]
            found.update(zip(names, map(tuple, np.rint(record['gt_bboxes']).astype(int).tolist()), strict=True))
    return found


def drawn(*pictures):
    return Counter((name, tuple(box)) for several in pictures for one in several for name, box in one.objects)


@pytest.mark.parametrize('with_parts', [False, True], ids=['whole', 'parts'])
@pytest.mark.parametrize('layout', own_data.LAYOUTS)
def test_the_config_reads_what_was_drawn(layout, with_parts, capsys):
    folder = write(layout, **(dict(train=TRAIN, val=VAL) if with_parts else dict(all=TRAIN)))
    path = new_experiment(folder)
    assert path == Path(f'configs/mine/{layout}.py')
    text = path.read_text()
    assert text.count('\n') <= 40
    assert text.count(f"'data/{layout}'") == text.count('short_side=') == text.count("'circle'") == 1
    cfg = load_config(path)
    train, val = built(cfg, 'train'), built(cfg, 'val')
    assert (train.test_mode, val.test_mode) == (False, True)
    assert cfg.test_dataloader == cfg.val_dataloader
    if with_parts:
        assert (len(train), len(val)) == (12, 6)
        assert objects(train) == drawn(TRAIN) and objects(val) == drawn(VAL)
    else:
        assert len(train) + len(val) == 12 and len(val) >= 2
        assert objects(train, val) == drawn(TRAIN)
    out = capsys.readouterr().out
    assert f'python tools/train.py configs/mine/{layout}.py' in out
    counts = Counter(name for name, _ in drawn(TRAIN).elements())
    assert f'| circle   | {counts["circle"]:>{14 if with_parts else 5}} |' in out


@pytest.mark.parametrize('layout', own_data.LAYOUTS)
def test_the_config_trains(layout, monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # which takes longer than the step
    folder = write(layout, train=TRAIN[-2:], val=VAL[:1])  # with an empty image
    cfg = load_config(new_experiment(folder), TINY)
    model = train_detector(cfg, work_dir='work', validate=False, seed=0)
    assert model.num_classes == len({name for name, _ in drawn(TRAIN[-2:], VAL[:1])})
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_background_images_are_trained_on():
    folder = write('coco', all=TRAIN)
    own_data.write(Path('streets'), 'coco', dict(all=VAL))
    Path('streets/annotations.json').unlink()
    path = new_experiment(folder, background='streets')
    cfg = load_config(path)
    check_config(cfg)
    assert load_config(path, safe=True).to_dict() == cfg.to_dict()
    train = built(cfg, 'train')
    labelled = len(built(load_config(new_experiment(folder, overwrite=True)), 'train'))
    assert len(train) == labelled + 6
    assert [len(train[i]['data_samples'].gt_instances) for i in range(labelled, labelled + 6)] == [0] * 6
    with pytest.raises(DataError, match=r'--background data/coco has labels \(COCO JSON\): give a folder of images'):
        new_experiment(folder, background=folder, out='other.py')


NAMES = ['5" card\'s', '猫', 'a\\b', 'class', '"""', '{x}']


def test_class_names_of_any_characters():
    pictures = own_data.draw(12, classes=NAMES)
    cfg = load_config(new_experiment(write('coco', all=pictures)))
    assert set(cfg.data.metainfo.classes) == {name for name, _ in drawn(pictures)}
    assert objects(built(cfg, 'train'), built(cfg, 'val')) == drawn(pictures)


def test_a_thousand_classes_are_in_a_text_file(capsys):
    names = [f'part number {number}' for number in range(1000)]
    folder = write('coco', all=[TRAIN[0]._replace(objects=[(name, [1, 2, 30, 40]) for name in names])])
    path = new_experiment(folder)
    assert 'Note: An image has 1000 objects, and at most 100 are detected in one' in capsys.readouterr().out
    assert path.read_text().count('\n') <= 40
    cfg = load_config(path)
    assert cfg.model.roi_head.max_per_image == 100
    assert Path(cfg.classes).read_text().split('\n') == [*sorted(names), '']
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'split': None, 'part': None})
    assert list(dataset.metainfo['classes']) == sorted(names)


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_class_without_a_box_is_left_out(capsys):
    folder = write('coco', all=TRAIN)
    change_json(folder / 'annotations.json', lambda content: content['categories'].append(dict(id=99, name='ghost')))
    text = new_experiment(folder).read_text()
    assert "# Left out, because it has no box: 'ghost'" in text
    assert 'ghost' not in load_config('configs/mine/coco.py').classes


def test_what_may_go_wrong_is_said(capsys):
    rare = [one for one in TRAIN if all(name != 'star' for name, _ in one.objects)]
    new_experiment(write('coco', train=rare, val=TRAIN))
    out = capsys.readouterr().out
    assert "Note: Train has no box of 'star', which cannot be learnt" in out
    assert 'Note: Validation has only 12 images' in out
    assert "Note: There are fewer than 10 boxes of 'circle'" in out


@pytest.mark.parametrize('mask', [[[1, 1, 9, 1, 9, 9]], {'size': [8, 8], 'counts': [64]}, [], None])
@pytest.mark.parametrize('place', [0, -1])
def test_masks_are_named(capsys, mask, place):
    folder = write('coco', train=TRAIN, val=TRAIN[:2])
    file = folder / 'train/_annotations.coco.json'
    change_json(file, lambda content: content['annotations'][place].update(segmentation=mask))
    new_experiment(folder)
    assert ('Note: The objects have masks.' in capsys.readouterr().out) == bool(mask)


def enlarge(content):
    for image in content['images']:
        image.update(height=6000, width=9000)


def test_images_of_many_pixels(capsys):
    """All objects are tiny. 800 is enlarged until the long side is 1333: 1333 / 1.5 = 888 = 27.75 * 32."""
    folder = write('coco', all=TRAIN)
    change_json(folder / 'annotations.json', enlarge)
    text = new_experiment(folder).read_text()
    assert max(map(len, text.splitlines())) <= 120
    assert 'short_side=864, max_size=1312' in text and 'anchors 8 to 128' in text
    assert 'Note: The images are 9000 pixels long' in capsys.readouterr().out


def test_one_class():
    folder = write('yolo', all=own_data.draw(4, classes=['cell']))
    cfg = load_config(new_experiment(folder))
    assert cfg.classes == ['cell'] and cfg.model.roi_head.bbox_head.num_classes is None


def test_what_is_there_is_not_replaced(capsys):
    folder = write('coco', all=TRAIN)
    path = new_experiment(folder, out='mine.py')
    path.write_text('# mine')
    with pytest.raises(ConfigError, match=r'mine\.py is there already: .*--overwrite'):
        new_experiment(folder, out='mine.py')
    assert path.read_text() == '# mine'
    assert new_experiment(folder, out='mine.py', overwrite=True).read_text() != '# mine'


def empty_boxes(content):
    content['annotations'] = []


@pytest.mark.parametrize(
    ('change', 'out', 'message'),
    [
        (None, 'mine.txt', r'--out is mine\.txt: expected the name of a config'),
        (None, 'data/coco/annotations.json/mine.py', r'mine\.py cannot be written: .*--out'),
        (empty_boxes, None, r'data/coco has no box: COCO JSON with 5 classes'),
    ],
)
def test_nothing_is_written_where_something_is_wrong(change, out, message):
    folder = write('coco', all=TRAIN)
    if change:
        change_json(folder / 'annotations.json', change)
    before = sorted(Path().rglob('*'))
    with pytest.raises((ConfigError, DataError), match=message):
        new_experiment(folder, out=out)
    assert sorted(Path().rglob('*')) == before


def test_images_without_labels_are_no_experiment():
    (write('coco', all=TRAIN) / 'annotations.json').unlink()
    with pytest.raises(DataError, match='data/coco has images and no labels: .*--background data/coco'):
        new_experiment('data/coco')


def test_no_part_to_learn_from(monkeypatch):
    found = Found('COCO JSON', 'CocoDataset', 'data/coco', dict(val={}, test={}), [])
    monkeypatch.setattr('frdet.apis.own_data.sources.recognise', lambda path: found)
    with pytest.raises(DataError, match='data/coco has val and test, and no train'):
        new_experiment('data/coco')


def test_the_base_is_named_from_the_place_of_the_config(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert base_for(Path('configs/mine/cells.py'), 'own_data.py') == '../_base_/own_data.py'
    assert base_for(Path('cells.py'), 'own_data_fcos.py') == 'configs/_base_/own_data_fcos.py'
    assert base_for(Path('/elsewhere/cells.py'), 'own_data.py') == str(ROOT / 'configs/_base_/own_data.py')


def test_few_images_are_seen_more_often():
    """2,000 images in all: 200 * 10, 100 * 20, 30 * 66.7."""
    assert [epochs_for(count) for count in (1000, 100, 30, 20, 3)] == [20, 20, 67, 100, 100]
