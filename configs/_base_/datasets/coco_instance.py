"""COCO 2017 as in coco_detection.py, with masks: the detector needs a mask head, and masks are evaluated, too."""

_base_ = ['coco_detection.py']

train_dataloader = dict(dataset=dict(with_masks=True))
val_dataloader = dict(dataset=dict(with_masks=True))
test_dataloader = val_dataloader

val_evaluator = dict(metric=('bbox', 'segm'))
test_evaluator = val_evaluator
