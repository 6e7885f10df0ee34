"""A small detector learns three photographs by heart: everything between the file and the figure works together."""

import json
from pathlib import Path

from frdet.apis import train_detector
from frdet.config import load_config

ROOT = Path(__file__).resolve().parents[1]
IMAGES, ITERATIONS = 3, 70


def few_large_objects(root: Path, ann_file: str, out: Path) -> int:
    """Write the annotations of the images with the largest objects, of up to three each. Returns the classes."""
    content = json.loads((root / ann_file).read_text())
    by_image: dict[int, list[dict]] = {}
    for annotation in content['annotations']:
        by_image.setdefault(annotation['image_id'], []).append(annotation)
    sizes = {image['id']: image['height'] * image['width'] for image in content['images']}

    def smallest_share(img_id: int) -> float:
        found = by_image.get(img_id, [])
        fits = 0 < len(found) <= 3 and not any(a.get('iscrowd') for a in found)
        return min(a['bbox'][2] * a['bbox'][3] for a in found) / sizes[img_id] if fits else -1

    chosen = set(sorted(sizes, key=smallest_share)[-IMAGES:])
    content['images'] = [image for image in content['images'] if image['id'] in chosen]
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] in chosen]
    out.write_text(json.dumps(content))
    return len(content['categories'])


def test_learns_three_images_by_heart(coco_root, tmp_path, monkeypatch):
    monkeypatch.setenv('FRDET_DATA_ROOT', str(coco_root.root))
    ann_file = tmp_path / 'three.json'
    num_classes = few_large_objects(coco_root.root, coco_root.val_ann, ann_file)
    side = dict(short_side=96, max_size=144)
    cfg = load_config(
        ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py',
        {
            'model.backbone': dict(depth=18, base_channels=32, norm=dict(type='BN'), frozen_stages=-1, init_cfg=None),
            'model.neck': dict(in_channels=(32, 64, 128, 256), out_channels=64, norm=dict(type='BN')),
            'model.rpn_head': dict(in_channels=64, feat_channels=64, post_nms_train=100, post_nms_test=50),
            'model.roi_head.bbox_head': dict(num_classes=num_classes, in_channels=64, fc_channels=128),
            'model.roi_head.sampler': dict(num=64, pos_fraction=0.5),
            'train_dataloader': dict(batch_size=IMAGES, num_workers=0),
            'train_dataloader.dataset.ann_file': str(ann_file),
            'train_dataloader.dataset.pipeline.1': side,
            'train_dataloader.dataset.pipeline.2.prob': 0.0,
            'train_dataloader.batch_sampler': None,
            'train_dataloader.sampler': dict(type='InfiniteSampler', shuffle=True),
            'val_dataloader.num_workers': 0,
            'val_dataloader.dataset.ann_file': str(ann_file),
            'val_dataloader.dataset.pipeline.1': side,
            'val_evaluator.ann_file': str(ann_file),
            'param_scheduler': [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20)],
            'optim_wrapper.clip_grad': dict(max_norm=10),
            'auto_scale_lr.enable': False,
            'train_cfg': dict(type='IterBasedTrainLoop', max_iters=ITERATIONS, val_interval=ITERATIONS),
            'default_hooks.checkpoint': dict(by_epoch=False, interval=ITERATIONS),
            'log_processor.by_epoch': False,
            'default_hooks.report': None,
        },
    )
    train_detector(cfg, work_dir=str(tmp_path / 'work'), seed=0)
    scalars = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    average_precision = [r['coco/bbox_mAP'] for r in map(json.loads, scalars) if 'coco/bbox_mAP' in r]
    assert average_precision[-1] > 0.5
