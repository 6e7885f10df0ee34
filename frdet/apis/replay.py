"""Computing a training step again that was not finite."""

import torch
from mmengine.config import Config

from frdet.checkpoints.fit import load_strictly
from frdet.config import check_config
from frdet.engine.hooks.non_finite import Diagnosis, diagnose, load_step
from frdet.engine.optim import DTYPES
from frdet.progress import Bar
from frdet.registry import DETECTORS, in_config_scope


@in_config_scope
def replay_step(cfg: Config, path: str) -> Diagnosis:
    """Compute the step of a ``non_finite_iter_N.pth`` again with its weights, random numbers and precision.

    A step of a GPU runs on a GPU if there is one, otherwise on the CPU.

    Raises:
        ConfigError: the config is wrong.
        CheckpointError: the file holds no such step, or does not fit the config's model.
    """
    check_config(cfg)
    with Bar('Reading the step', 2) as bar:
        step = load_step(path)
        model = DETECTORS.build(cfg.model)
        load_strictly(model, step['state_dict'], path)
        bar.advance(description='Computing it')
        device = 'cuda' if 'cuda' in step['rng'] and torch.cuda.is_available() else 'cpu'
        autocast = torch.autocast(device, DTYPES[step['autocast']]) if step['autocast'] else None
        return diagnose(model.to(device).train(), step['batch'], step['rng'], autocast)
