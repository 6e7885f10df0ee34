"""Two processes gather their detections; an image that both saw counts once."""

import json
import subprocess

import numpy as np
import pytest
import torch

from frdet.evaluation import CocoMetric
from tests import warm
from tests.engine.toy import ROOT
from tests.evaluation.test_coco_metric import drawn

SCRIPT = """
import json, sys
import torch
from frdet.evaluation import CocoMetric

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
samples, classes = torch.load(f'{folder}/samples.pth', weights_only=True)
metric = CocoMetric(ann_file=f'{folder}/truth.json', outfile=f'{folder}/results.json')
metric.dataset_meta = dict(classes=classes)
# As DefaultSampler: every second image, the first one again at the end so that both have as many; batches reordered.
indices = [*range(len(samples)), 0] if len(samples) % 2 else list(range(len(samples)))
for index in reversed(indices[rank::2]):
    metric.process({}, [samples[index]])
figures = metric.evaluate(len(samples))
json.dump(figures, open(f'{folder}/figures{rank}.json', 'w'))
torch.distributed.destroy_process_group()
"""


@pytest.mark.long
def test_two_processes(tmp_path):
    truth, samples, classes = drawn(np.random.default_rng(1), num_images=11)
    samples = [
        {'img_id': s['img_id'], 'pred_instances': {k: s['pred_instances'][k] for k in ('bboxes', 'scores', 'labels')}}
        for s in samples
    ]
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    torch.save((samples, classes), tmp_path / 'samples.pth')
    run = [
        subprocess.Popen([warm.python(), '-c', SCRIPT, str(rank), str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL)
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in run] == [0, 0]
    metric = CocoMetric(ann_file=str(tmp_path / 'truth.json'))
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, samples)
    expected = metric.evaluate(len(samples))
    for rank in range(2):
        assert json.loads((tmp_path / f'figures{rank}.json').read_text()) == expected
    records = json.loads((tmp_path / 'results.json').read_text())
    assert len(records) == sum(len(s['pred_instances']['scores']) for s in samples)
