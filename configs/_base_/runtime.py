"""The settings of a run beside model, data and schedule: hooks, logs, processes."""

default_scope = 'frdet'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3, save_best='coco/bbox_mAP'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DrawDetectionsHook', out_dir=None, score_thr=0.3),
    check_setup=dict(type='CheckSetupHook'),  # class counts, FrozenBN without weights
    non_finite=dict(type='NonFiniteHook', interval=1),  # stops at a step that is NaN; action='skip' skips it
    broken_images=dict(type='BrokenImagesHook', max_share=0.01),  # images that cannot be read are counted, and left out
    hang=dict(type='HangHook', timeout=600),  # ends all processes if one makes no progress for 600 s
    plain_checkpoint=dict(type='PlainCheckpointHook'),  # checkpoints that contain no code
    progress=dict(type='ProgressHook'),  # bars on a terminal: epoch, iteration, ETA, losses
    report=dict(type='ReportHook', batches=2),  # results.csv, plots, and the facts for tools/report.py
)
custom_hooks = []

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # gloo without a GPU; timeout=SECONDS of an exchange, 1800 by default
)
randomness = dict(seed=None, deterministic=False)

log_level = 'INFO'
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='DetVisualizer', vis_backends=vis_backends)

load_from = None  # weights to start from; with resume, the checkpoint to continue
resume = False
