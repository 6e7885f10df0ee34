"""tools/detect.py on files: what is drawn and listed, and what is wrong said in words."""

import dataclasses
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from frdet.apis import DetInferencer, inference_detector
from frdet.config import dump_config, load_config
from frdet.errors import ConfigError, DataError
from frdet.registry import DETECTORS
from tests.engine.toy import ROOT
from tests.tools.test_train_and_test import run_tool
from tests.weights import NARROW_WORDS

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'
SMALL = [
    *NARROW_WORDS,
    'model.roi_head.bbox_head.fc_channels=32',
    'model.roi_head.score_thr=0.0',
    'model.rpn_head.post_nms_test=20',
]
CLASSES = ('disc', 'square', 'cross', 'star', 'ring', 'bar')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoint') / 'a.pth'
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.build(load_config(ROOT / CONFIG, SMALL).model)
    torch.save({'state_dict': model.state_dict(), 'meta': {'dataset_meta': {'classes': CLASSES}}}, path)
    return path


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Two of one name but for the ending, one in other proportions, and one that is broken."""
    folder = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for name, size in (('a.jpg', (60, 90)), ('a.png', (60, 90)), ('b.jpg', (80, 50))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / 'c.jpg').write_text('no image')
    (folder / 'notes.txt').write_text('not looked at')
    return folder


def detect(source, checkpoint, out, *options):
    return run_tool('detect', source, CONFIG, checkpoint, '--out', out, '--device', 'cpu', '--score-thr', '0',
                    *options, '--cfg-options', *SMALL, root=out)  # fmt: skip


def test_folder(images, checkpoint, tmp_path):
    """The broken image is named and passed over; records are those of a model asked image by image."""
    done = detect(images, checkpoint, tmp_path / 'out', '--batch-size', '2')
    assert done.returncode == 1
    assert 'c.jpg cannot be decoded' in done.stderr and 'Traceback' not in done.stderr
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {'a.jpg', 'a.png.jpg', 'b.jpg', 'detections.json'}
    records = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    detector = DetInferencer(ROOT / CONFIG, checkpoint, 'cpu', cfg_options=SMALL)
    for number, name in enumerate(('a.jpg', 'a.png', 'b.jpg'), start=1):
        found = inference_detector(detector.model, images / name).pred_instances
        mine = [r for r in records if r['image_id'] == number]
        assert {r['file_name'] for r in mine} == {str(images / name)}
        assert len(mine) == len(found) > 0
        boxes = torch.tensor([r['bbox'] for r in mine])
        boxes[:, 2:] += boxes[:, :2]
        torch.testing.assert_close(boxes, found.bboxes, rtol=0, atol=0.05)  # batches are padded
        assert [r['category_id'] for r in mine] == [label + 1 for label in found.labels.tolist()]
        assert all(r['category_name'] == CLASSES[r['category_id'] - 1] for r in mine)


def test_pattern_and_classes(images, checkpoint, tmp_path):
    done = detect(images / '[ab].jpg', checkpoint, tmp_path / 'out', '--classes', 'star', 'bar')
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / 'out').glob('*.jpg')} == {'a.jpg', 'b.jpg'}
    records = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert {r['category_name'] for r in records} <= {'star', 'bar'} and records


def test_video(checkpoint, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'v.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 5, (96, 64))
    for shade in (0, 120, 250):
        writer.write(np.full((64, 96, 3), shade, np.uint8))
    writer.release()
    done = detect(tmp_path / 'v.mp4', checkpoint, tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'v.mp4'))
    assert video.get(cv2.CAP_PROP_FPS) == 5 and video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (96, 64)
    records = json.loads((tmp_path / 'out' / 'detections.json').read_text())
    assert {(r['image_id'], r['frame']) for r in records} == {(1, 0), (2, 1), (3, 2)}


@pytest.mark.parametrize(
    ('source', 'options', 'message'),
    [
        ('none.jpg', [], 'none.jpg is no file, no folder'),
        ('bad.mp4', [], 'no frame could be read'),
        ('a.jpg', ['--classes', 'sqare'], "No class is named 'sqare': did you mean square"),
        ('a.jpg', ['--out', '{}/a.jpg'], 'cannot be made a folder'),
        ('a.jpg', ['--device', 'gpu'], "Device 'gpu' cannot be used: torch can use cpu"),
        ('a.jpg', ['--device', 'cuda:99'], "Device 'cuda:99' cannot be used: torch can use cpu"),
    ],
)
def test_wrong_input(images, checkpoint, tmp_path, source, options, message):
    shutil.copy(images / 'a.jpg', tmp_path)
    (tmp_path / 'bad.mp4').write_text('no video')
    done = detect(tmp_path / source, checkpoint, tmp_path / 'out', *(o.format(tmp_path) for o in options))
    assert done.returncode == 1 and message in done.stderr and 'Traceback' not in done.stderr


def test_from_python(images, checkpoint):
    detector = DetInferencer(ROOT / CONFIG, checkpoint, 'cpu', cfg_options=SMALL, score_thr=0.0)
    array = np.asarray(Image.open(images / 'a.png').convert('RGB'))
    by_path, by_array = detector([images / 'a.png', array], batch_size=2, channel_order='rgb')
    assert np.array_equal(by_path.image, array)
    np.testing.assert_array_equal(by_path.boxes, by_array.boxes)
    assert (np.diff(by_path.scores) <= 0).all() and len(by_path.scores) > 0
    assert by_path._repr_png_().startswith(b'\x89PNG')
    first = f'{CLASSES[by_path.labels[0]]} {by_path.scores[0]:.2f}'
    assert repr([by_path]).startswith(f'[Detected({len(by_path.labels)} in 90x60 pixels: {first}')
    assert len(repr(by_path)) < 200  # a list of them is printed, not drawn
    none = dataclasses.replace(by_path, boxes=by_path.boxes[:0], scores=by_path.scores[:0], labels=by_path.labels[:0])
    assert repr(none) == 'Detected(0 in 90x60 pixels: nothing)' and none.to_table() == none.to_coco() == []
    least = float(np.median(by_path.scores))
    detector.score_thr = least
    assert len(detector(images / 'a.png').scores) == (by_path.scores >= least).sum()
    with pytest.raises(ConfigError, match='from 0 to 1'):
        DetInferencer(ROOT / CONFIG, checkpoint, score_thr=30)


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('detect', ROOT / 'tools/detect.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('order', ['{0} {1} --out {2}', '--out {2} {0} {1}', '{0} --out {2} {1}'])
def test_a_checkpoint_alone(tool, images, checkpoint, tmp_path, monkeypatch, order):
    """The config is in it, and the category ids; options may stand anywhere."""
    content = torch.load(checkpoint, weights_only=True)
    cfg = load_config(ROOT / CONFIG, [*SMALL, 'test_dataloader.dataset.data_root=/none'])
    content['meta'] = {**content['meta'], 'cfg': dump_config(cfg), 'category_ids': [11, 12, 13, 14, 15, 16]}
    torch.save(content, tmp_path / 'epoch_1.pth')
    words = order.format(images / 'a.jpg', tmp_path / 'epoch_1.pth', tmp_path / 'out').split()
    monkeypatch.setattr(sys, 'argv', ['detect.py', *words, '--score-thr', '0', '--device', 'cpu'])
    assert tool.main() == 0
    records = json.loads((tmp_path / 'out/detections.json').read_text())
    assert records and all(r['category_name'] == CLASSES[r['category_id'] - 11] for r in records)


def test_a_config_without_a_checkpoint(tool, images, tmp_path, monkeypatch):
    """Not random weights."""
    words = [images / 'a.jpg', ROOT / CONFIG, '--out', tmp_path / 'out']
    monkeypatch.setattr(sys, 'argv', ['detect.py', *map(str, words)])
    with pytest.raises(ConfigError, match=r'r18_fpn_shapes\.py is a config: give the checkpoint after it'):
        tool.main()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Names alone: nothing is read where files are looked for."""
    for name in ('top.jpg', 'deep/a/1.PNG', 'deep/a/2.txt', 'deep/b/3.mp4', 'deep/.hidden/4.jpg', 'deep/out/5.jpg',
                 'linked/6.jpg', 'no_ending', 'lists/near.jpg'):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('')
    (tmp_path / 'deep/c').symlink_to(tmp_path / 'linked')
    (tmp_path / 'deep/a/circle').symlink_to(tmp_path / 'deep')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'lists/all.txt').write_text(f'top.jpg\n\nnear.jpg\n{tmp_path}/deep/a/1.PNG\n./top.jpg\n  gone.jpg \n')
    (tmp_path / 'lists/none.TXT').write_text(' \n')
    (tmp_path / 'lists/binary.txt').write_bytes(b'\xff\xfe\x00')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ('source', 'expected'),
    [
        ('top.jpg', ['top.jpg']),
        ('no_ending', ['no_ending']),
        ('deep', ['deep/a/1.PNG', 'deep/b/3.mp4', 'deep/c/6.jpg']),
        ('deep/', ['deep/a/1.PNG', 'deep/b/3.mp4', 'deep/c/6.jpg']),
        ('deep/out', ['deep/out/5.jpg']),  # asked for by name
        ('li*/**/*.jpg', ['linked/6.jpg', 'lists/near.jpg']),
        ('lists/all.txt', ['top.jpg', 'lists/near.jpg', '{}/deep/a/1.PNG', 'lists/gone.jpg']),
    ],
)
def test_sources(tool, folder, source, expected):
    assert [str(file) for file in tool.find_files(source, Path('deep/out'))] == [e.format(folder) for e in expected]


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        ('empty', 'its folders have no image and no video'),
        ('0', '0 is no file; cameras and addresses are not read: .*DetInferencer.stream'),
        ('https://a.org/b.jpg', 'https://a.org/b.jpg is no file; cameras and addresses are not read: download'),
        ('rtsp://a/1', 'cameras and addresses are not read'),
        ('none.jpg', 'no file, no folder, and no pattern'),
        ('x/*.jpg', 'no pattern of an existing file'),
        ('lists/none.TXT', 'lists/none.TXT is empty: expected one path in a line'),
        ('lists/binary.txt', 'lists/binary.txt is no text: expected one path in a line'),
    ],
)
def test_sources_that_cannot_be(tool, folder, source, words):
    with pytest.raises(DataError, match=words):
        tool.find_files(source, Path('out'))


@pytest.mark.parametrize(
    ('files', 'expected'),
    [
        (['x/a.jpg'], ['a.jpg']),
        (['x/a.jpg', 'x/a.png', 'x/a'], ['a.jpg', 'a.png.jpg', 'a.jpg.jpg']),
        (['x/a.JPG', 'x/a.jpg', 'x/a.mp4', 'x/a.avi'], ['a.JPG.jpg', 'a.jpg', 'a.mp4', 'a.avi.mp4']),
        (['x/1/a.jpg', 'x/2/a.jpg'], ['1/a.jpg', '2/a.jpg']),
        (['x/1/a.jpg', '../a.jpg'], ['{}/x/1/a.jpg', 'a.jpg']),
        (['{0}/{1}/x/1/a.jpg', 'x/2/a.jpg'], ['1/a.jpg', '2/a.jpg']),  # an absolute one and a relative one
    ],
)
def test_every_file_is_drawn_in_a_place_of_its_own(tool, tmp_path, monkeypatch, files, expected):
    monkeypatch.chdir(tmp_path)
    paths = [Path(file.format(tmp_path.parent, tmp_path.name)) for file in files]
    drawn = tool.drawn_files(paths, Path('out'))
    assert list(drawn) == paths
    assert [os.path.relpath(path, 'out') for path in drawn.values()] == [e.format(tmp_path.name) for e in expected]


def test_an_image_is_never_drawn_over(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'link').symlink_to(tmp_path)
    for out in ('.', 'link'):
        with pytest.raises(DataError, match=r'a\.jpg is an input, and would be overwritten: choose another --out'):
            tool.drawn_files([Path('a.jpg'), Path('b.png')], Path(out))
    tool.drawn_files([Path('a.png')], Path('.'))
