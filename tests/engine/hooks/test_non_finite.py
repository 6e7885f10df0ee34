"""A loss that is no number stops the run and says where."""

import pytest
import torch

from frdet.engine.hooks import NonFiniteHook, NonFiniteLossError
from frdet.errors import UserError
from tests.engine import toy


def test_names_iteration_loss_and_images(tmp_path):
    changes = {'model.bad_iteration': 6, 'train_dataloader.sampler.shuffle': False}
    run = toy.runner(tmp_path, **changes)
    with pytest.raises(NonFiniteLossError) as info:
        run.train()
    message = str(info.value)
    assert 'iteration 6 (epoch 2)' in message
    assert 'loss_bbox is nan' in message and 'loss_cls' not in message
    # The second batch of three of an epoch.
    assert '103 (/images/103.jpg), 104 (/images/104.jpg), 105 (/images/105.jpg)' in message
    assert issubclass(NonFiniteLossError, UserError)
    assert run.iter == 5
    assert len(message.splitlines()) <= 2


@pytest.mark.parametrize(
    ('value', 'raises'), [(float('inf'), True), (-float('inf'), True), (1e30, False), (0.0, False)]
)
def test_infinite_and_large(tmp_path, value, raises):
    run = toy.runner(tmp_path)
    run.build_train_loop(run._train_loop)
    run.optim_wrapper = run.build_optim_wrapper(run.optim_wrapper)
    outputs = {'loss': torch.tensor(value), 'acc': torch.tensor(float('nan'))}
    if raises:
        with pytest.raises(NonFiniteLossError, match='loss is -?inf'):
            NonFiniteHook().after_train_iter(run, 0, None, outputs)
    else:
        NonFiniteHook().after_train_iter(run, 0, None, outputs)
