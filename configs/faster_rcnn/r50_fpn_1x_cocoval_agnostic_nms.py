"""Ablation: NMS across classes, so that one object is found as one class. It changes testing only."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(roi_head=dict(nms=dict(type='NMS', class_agnostic=True)))
