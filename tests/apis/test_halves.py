"""A step on two halves of a batch is the step on the batch: two processes, or gradients accumulated twice."""

import os
import subprocess

import pytest
import torch

from tests import warm
from tests.apis import halves
from tests.engine.toy import ROOT


def trained(parts, **model):
    """Parameters after the steps of one process, each on so many parts of the batch."""
    model = halves.build_model(**model)
    optim = halves.optimiser(model, accumulative_counts=parts)
    for step in range(halves.STEPS):
        for part in range(parts):
            model.train_step(halves.batch(halves.images_of(step)[part::parts]), optim)
    return halves.parameters(model)


@pytest.fixture(scope='module')
def whole():
    return trained(parts=1)


def largest_difference(found, expected):
    """Over all parameters: the norm of the difference, relative to how far training has moved the parameter."""
    start = halves.parameters(halves.build_model())
    assert found.keys() == expected.keys() == start.keys()
    moved = {k: (expected[k] - start[k]).norm() for k in start}
    assert all(moved.values())
    return max((found[k] - expected[k]).norm() / moved[k] for k in start)


def test_accumulated_halves(whole):
    assert largest_difference(trained(parts=2), whole) < 1e-6


def test_two_processes(whole, tmp_path):
    env = {**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT)}
    command = [warm.python(), '-m', 'tests.apis.halves']
    run = [subprocess.Popen([*command, str(rank), str(tmp_path)], cwd=ROOT, env=env) for rank in range(2)]
    assert [process.wait(timeout=120) for process in run] == [0, 0]
    first, second, *empty = (
        torch.load(tmp_path / name, weights_only=True) for name in ('0.pth', '1.pth', '0_empty.pth', '1_empty.pth')
    )
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert largest_difference(first, whole) < 1e-6
    # Batches without boxes give every parameter a gradient, or the processes would part or wait for each other.
    assert all(torch.equal(empty[0][k], empty[1][k]) and empty[0][k].isfinite().all() for k in first)


def test_halves_of_unequal_samples_differ():
    """The second stage divides by the samples of a process: where the quota is not met, images weigh differently."""
    every = dict(roi_samples=10_000)
    assert largest_difference(trained(parts=2, **every), trained(parts=1, **every)) > 1e-4
