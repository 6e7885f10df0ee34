import json

import numpy as np
import torch
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as coco_mask

from frdet.datasets import CocoDataset
from frdet.evaluation import CocoMetric
from frdet.insight.trace.matching import MetricTruth
from frdet.insight.trace.model import Around, Card, load_cards, save_cards
from frdet.insight.trace.pictures import crop
from frdet.insight.trace.rows import _mask_of
from frdet.structures import DetDataSample


def test_a_crop(tmp_path):
    """A box of 20 x 10 at (100, 50) of 240 x 160: 32 pixels around it are x 68 to 153, y 18 to 93."""
    Image.new('RGB', (240, 160), 'seagreen').save(tmp_path / 'a.png')
    card = Card(
        '1',
        '1',
        str(tmp_path / 'a.png'),
        [Around('anchor', (90, 40, 130, 70), 'a'), Around('object', (0, 0, 60, 60), 'b')],
    )
    picture, marks = crop(card, (100, 50, 120, 60), 'bus')
    assert picture.shape == (75, 85, 3) and picture[0, 0].tolist() == [46, 139, 87]
    assert [(mark.tags['kind'], mark.xywh, mark.label) for mark in marks] == [
        ('anchor', [22, 22, 40, 30], ''), ('this object', [32, 32, 20, 10], 'bus')
    ]  # fmt: skip
    # A box as large as the image is shrunk to 360 pixels: by 360 / 600.
    Image.new('RGB', (600, 300)).save(tmp_path / 'a.png')
    picture, marks = crop(card, (0, 0, 600, 300), 'bus')
    assert picture.shape == (180, 360, 3) and marks[-1].xywh == [0, 0, 360, 180]
    assert crop(Card('1', '1', str(tmp_path / 'b.png'), []), (0, 0, 9, 9), 'bus') is None
    assert crop(card, (700, 400, 710, 410), 'bus')[0].size  # a box outside of the image


def test_masks_of_a_crop(tmp_path):
    """A mask of 10 x 6 at (104, 52), in the crop at (68, 18): its outline goes through the middle of the pixels."""
    Image.new('RGB', (240, 160)).save(tmp_path / 'a.png')
    pixels = np.zeros((160, 240), np.uint8, order='F')
    pixels[52:58, 104:114] = 1
    rle = coco_mask.encode(pixels)
    mask = {'size': rle['size'], 'counts': rle['counts'].decode()}
    other = {**mask, 'size': [80, 480]}  # of an image of another size
    around = [Around('detection', [100, 50, 120, 60], 'a', mask), Around('object', [100, 50, 120, 60], 'b', other)]
    card = Card('1', '1', str(tmp_path / 'a.png'), around, mask)
    _, marks = crop(card, (100, 50, 120, 60), 'bus')
    outline = 'M36.5 34.5L36.5 39.5L45.5 39.5L45.5 34.5Z'
    assert {mark.tags['kind']: mark.outline for mark in marks} == {
        'detection': outline, 'other object': '', 'this object': outline
    }  # fmt: skip
    save_cards([card], tmp_path)
    assert load_cards(tmp_path) == [card]


def test_where_masks_come_from(tmp_path):
    """Those of the annotation and of the detection, in whatever order the model gives them."""
    boxes = {7: [[1, 2, 4, 3]], 9: [[0, 0, 5, 5], [10, 6, 2, 8]]}  # xywh; every mask is its box
    annotations = [
        dict(id=10 * image + k, image_id=image, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0,
             segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])
        for image, some in boxes.items() for k, box in enumerate(some) for x, y, w, h in [box]
    ]  # fmt: skip
    images = [dict(id=image, file_name=f'{image}.png', width=20, height=16) for image in boxes]
    content = dict(images=images, annotations=annotations[::-1], categories=[dict(id=1, name='a')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    for with_masks in (True, False):
        data = CocoDataset(
            ann_file=str(tmp_path / 'a.json'),
            data_prefix=dict(img=str(tmp_path)),
            with_masks=with_masks,
            test_mode=True,
            pipeline=[],
        )
        metric = CocoMetric()
        metric.dataset_meta = data.metainfo
        metric.use_dataset(data)
        truth = MetricTruth(metric)
        for position in (0, 1):
            for row, box in enumerate(truth.of(position).xywh.tolist()):
                mask = truth.mask(position, row)
                assert coco_mask.toBbox(mask).tolist() == box if with_masks else mask is None
    sample = DetDataSample(pred_instances=InstanceData(scores=torch.tensor([0.2, 0.9, 0.5])))
    assert _mask_of(sample, 0) is None
    sample.pred_instances.masks = torch.zeros(3, 16, 20, dtype=torch.bool)
    for k in range(3):
        sample.pred_instances.masks[k, k : k + 4, 3] = True
    assert [coco_mask.toBbox(_mask_of(sample, place)).tolist()[1] for place in range(3)] == [1, 2, 0]
