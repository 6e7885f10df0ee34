"""What a user gets wrong: one or two lines on stderr, exit code 1, nothing half-written."""

import json
import shutil

import pytest

from tests.tools.test_train_and_test import CONFIG, run_tool

QUICK = 'configs/quickstart/r18_fpn_shapes.py'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """A drawn data set to break."""
    from frdet.datasets import write_shapes

    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=4, num_val=2)


def options(root, *more: str) -> list[str]:
    annotations = root / 'annotations/instances_val2017.json'
    return [
        '--cfg-options',
        *(f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val', 'test')),
        *(f'{split}_evaluator.ann_file={annotations}' for split in ('val', 'test')),
        *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
        'train_cfg.max_epochs=1',
        *more,
    ]


def fails(done, work_dir, *words: str) -> None:
    """The tool stopped with one worded error that holds ``words``, and left no work dir."""
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(errors) == 1 and 'Traceback' not in done.stderr, done.stderr
    message = done.stderr[done.stderr.index('error: ') :]
    assert len(message.strip().splitlines()) <= 2
    assert all(word in message for word in words), message
    assert not work_dir.exists()


def test_no_data_set(tmp_path):
    work = tmp_path / 'work'
    done = run_tool(
        'train', CONFIG, '--work-dir', work, '--cfg-options', 'model.backbone.init_cfg=None', root=tmp_path / 'nowhere'
    )
    fails(done, work, str(tmp_path / 'nowhere'), 'tools/download_coco.py', 'FRDET_DATA_ROOT')


def test_config_that_does_not_exist(tmp_path):
    done = run_tool('train', 'configs/faster_rcnn/r50_fpn_1x_cocovl.py', '--work-dir', tmp_path / 'w', root=tmp_path)
    fails(done, tmp_path / 'w', 'r50_fpn_1x_cocovl.py does not exist', 'did you mean', 'r50_fpn_1x_cocoval.py')


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('{"images": [', ['is not JSON']),
        ('[1, 2]', ['holds a JSON list', 'COCO']),
        ('{"info": {}}', ['no images', 'COCO']),
    ],
)
def test_json_that_is_no_coco_file(tmp_path, shapes, content, words):
    root = shutil.copytree(shapes, tmp_path / 'root')
    (root / 'annotations/instances_train2017.json').write_text(content)
    done = run_tool('train', QUICK, '--work-dir', tmp_path / 'w', *options(root), root=tmp_path)
    fails(done, tmp_path / 'w', 'instances_train2017.json', *words)


def test_class_the_file_does_not_have(tmp_path, shapes):
    more = "train_dataloader.dataset.metainfo=dict(classes=['circle','tringle'])"
    done = run_tool('train', QUICK, '--work-dir', tmp_path / 'w', *options(shapes, more), root=tmp_path)
    fails(done, tmp_path / 'w', "no class 'tringle'", 'did you mean triangle')


def test_class_count_that_differs_from_the_heads(tmp_path, shapes):
    more = 'model.roi_head.bbox_head.num_classes=80'
    done = run_tool('train', QUICK, '--work-dir', tmp_path / 'w', *options(shapes, more), root=tmp_path)
    fails(done, tmp_path / 'w', '6', '80', 'num_classes')


@pytest.mark.parametrize('workers', [0, 1])
def test_image_missing_on_disk(tmp_path, shapes, workers):
    root = shutil.copytree(shapes, tmp_path / 'root')
    for image in (root / 'train2017').glob('*.jpg'):
        image.unlink()
    more = f'train_dataloader.num_workers={workers}'
    done = run_tool('train', QUICK, '--work-dir', tmp_path / 'w', *options(root, more), root=tmp_path)
    fails(done, tmp_path / 'w', 'train2017', '.jpg', 'is not on disk')


def test_unreadable_checkpoint(tmp_path, shapes):
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(b'PK\x03\x04 no checkpoint')
    done = run_tool('test', QUICK, broken, '--work-dir', tmp_path / 'w', *options(shapes), root=tmp_path)
    fails(done, tmp_path / 'w', 'broken.pth')


def test_missing_checkpoint(tmp_path, shapes):
    done = run_tool('test', QUICK, tmp_path / 'gone.pth', '--work-dir', tmp_path / 'w', *options(shapes), root=tmp_path)
    fails(done, tmp_path / 'w', 'gone.pth')


def test_frozen_norms_without_weights(tmp_path, coco_root):
    classes = len(json.loads((coco_root.root / coco_root.val_ann).read_text())['categories'])
    done = run_tool(
        'train', CONFIG, '--work-dir', tmp_path / 'w', '--cfg-options', 'model.backbone.init_cfg=None',
        f'model.roi_head.bbox_head.num_classes={classes}', 'train_dataloader.num_workers=0', root=coco_root.root,
    )  # fmt: skip
    fails(done, tmp_path / 'w', 'FrozenBN', 'r50_fpn_1x_cocoval_scratch.py')


def test_weights_that_cannot_be_downloaded(tmp_path, coco_root):
    classes = len(json.loads((coco_root.root / coco_root.val_ann).read_text())['categories'])
    done = run_tool(
        'train', CONFIG, '--work-dir', tmp_path / 'w', '--cfg-options', 'train_dataloader.num_workers=0',
        'model.backbone.init_cfg.checkpoint=http://127.0.0.1:9/ImageNet/R-50.pkl',
        f'model.roi_head.bbox_head.num_classes={classes}', root=coco_root.root, FRDET_CACHE=str(tmp_path / 'cache'),
    )  # fmt: skip
    fails(
        done, tmp_path / 'w', 'http://127.0.0.1:9/ImageNet/R-50.pkl', str(tmp_path / 'cache'),
        'r50_fpn_1x_cocoval_scratch.py',
    )  # fmt: skip
