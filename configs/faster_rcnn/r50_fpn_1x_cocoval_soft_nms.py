"""Ablation: soft-NMS. It changes testing only, so `tools/test.py` can try it on a checkpoint of the reference."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(roi_head=dict(nms=dict(type='SoftNMS', min_score=0.05)))
