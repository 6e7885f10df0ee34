"""The drawn shapes as in shapes_detection.py, with masks: the detector needs a mask head, and masks are evaluated, too.

A folder that was drawn without masks must be deleted, so that it is drawn again.
"""

_base_ = ['shapes_detection.py']

train_dataloader = dict(dataset=dict(with_masks=True))
val_dataloader = dict(dataset=dict(with_masks=True))
test_dataloader = val_dataloader

val_evaluator = dict(metric=('bbox', 'segm'))
test_evaluator = val_evaluator
