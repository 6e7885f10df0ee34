"""tools/gpu_check.sh with a stand-in for Python that prints what it was asked."""

import os
import subprocess

import pytest

from tests.engine.toy import ROOT


@pytest.fixture
def check(tmp_path):
    def run(fails_at: str = 'nothing', *words: str) -> tuple[int, str, str]:
        stand_in = tmp_path / 'python'
        stand_in.write_text(f'#!/bin/sh\necho "ran $*"\ncase "$*" in *{fails_at}*) echo wrong >&2; exit 3;; esac\n')
        stand_in.chmod(0o755)
        done = subprocess.run(
            ['bash', 'tools/gpu_check.sh', str(tmp_path / 'out'), *words],
            cwd=ROOT,
            env={**os.environ, 'PYTHON': str(stand_in)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, (tmp_path / 'out/table.md').read_text()

    return run


def test_one_table_of_everything(check):
    code, _, table = check()
    assert code == 0
    against = '--family faster_rcnn --against torchvision --device cuda --batch'
    for task, batches in (('train', (6, 16)), ('infer', (1, 8))):
        for batch in batches:
            assert f'\nran tools/benchmark.py {task} {against} {batch}\n' in table
            assert f'\nran tools/benchmark.py {task} {against} {batch} --amp\n' in table
    assert '\nran tools/benchmark.py gpu --batch 6 16\n' in table
    assert '\nran tools/benchmark.py ops --device cuda' in table


def test_rows_of_every_other_family(check):
    code, _, table = check('nothing', 'families')
    assert code == 0
    for family in ('mask_rcnn', 'retinanet', 'fcos', 'faster_rcnn_v2', 'retinanet_v2', 'mask_rcnn_v2'):
        for command in ('train', 'infer'):
            assert f'\nran tools/benchmark.py {command} --family {family} --against torchvision' in table
    assert 'faster_rcnn ' not in table


def test_a_failure_is_told_and_leaves_the_rest(check):
    code, printed, table = check('infer*8*amp')
    assert code == 1
    assert printed.endswith('failed: faster_rcnn, infer, 8 images --amp\n')
    assert 'wrong\n' in printed and 'exit code 3\n' in table
    assert 'ran tools/benchmark.py ops' in table


def test_the_tests_count(check):
    code, printed, _ = check('pytest')
    assert code == 1
    assert printed.endswith('failed: tests\n')
