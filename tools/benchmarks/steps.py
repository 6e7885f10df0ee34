"""One training step, or the inference of one batch, compared with torchvision with the same weights and images."""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.models import load_frdet, load_images, load_torchvision, random_weights, to_torchvision
from benchmarks.timing import Report, alternate, machine, process_mib

Values = dict[str, Tensor]
Step = Callable[[], Values]
TOOL = Path(__file__).resolve().parents[1] / 'benchmark.py'
_PRODUCTS = re.compile(r'convolution|conv2d|linear|::(add|b|badd)?b?mm$')


def _autocast(args: argparse.Namespace) -> contextlib.AbstractContextManager:
    return torch.autocast(args.device.type, torch.bfloat16, enabled=args.amp)


def _training(model: nn.Module, losses: Callable[[], Values], args: argparse.Namespace) -> Step:
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    # The learning rate is so small that the losses of all steps can be compared.
    optimizer = torch.optim.SGD(params, lr=1e-6, momentum=0.9, weight_decay=1e-4)

    def step() -> Values:
        with _autocast(args):
            found = losses()
            total = torch.stack([value for key, value in found.items() if 'loss' in key]).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return {'loss': total.detach(), **{k: v.detach() for k, v in found.items() if 'loss' in k}}

    return step


def _inference(model: nn.Module, predict: Callable[[], list[Tensor]], args: argparse.Namespace) -> Step:
    model.eval()

    def step() -> Values:
        with torch.inference_mode(), _autocast(args):
            scores = torch.cat(predict())
        return {'detections': torch.tensor(len(scores)), 'mean score': scores.mean()}

    return step


def frdet_step(weights: dict[str, Tensor], data: dict[str, Any], args: argparse.Namespace) -> Step:
    model = load_frdet(weights, args.device)
    data = model.data_preprocessor.cast_data(data)
    if args.command == 'train':
        return _training(model, lambda: model(**model.data_preprocessor(data, True), mode='loss'), args)
    batch = model.data_preprocessor(data, False)
    return _inference(model, lambda: [s.pred_instances.scores for s in model(**batch, mode='predict')], args)


def torchvision_step(weights: dict[str, Tensor], data: dict[str, Any], args: argparse.Namespace) -> Step:
    model = load_torchvision(weights, data, args.device)
    images, targets = to_torchvision(data, args.device)
    if args.command == 'train':
        return _training(model, lambda: model(images, targets), args)
    batch = model.transform.eval()(images)[0]

    def predict() -> list[Tensor]:
        features = model.backbone(batch.tensors)
        found, _ = model.roi_heads(features, model.rpn(batch, features)[0], batch.image_sizes)
        found = model.transform.postprocess(found, batch.image_sizes, batch.image_sizes)
        return [detections['scores'] for detections in found]

    return _inference(model, predict, args)


SIDES = {'frdet': frdet_step, 'torchvision': torchvision_step}


def share_outside_products(step: Step, device: torch.device) -> float:
    """Percentage of the operators' time on the device that is not spent in convolutions and matrix products."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == 'cuda' else [])
    with profile(activities=activities) as found:
        step()
    products = total = 0.0
    for event in found.key_averages():
        # For CUDA the time of the kernels that an operator launches.
        time = event.self_cpu_time_total if device.type == 'cpu' else event.self_device_time_total
        if not event.key.startswith(('aten::', 'frdet::', 'torchvision::', 'mkldnn')):
            continue
        total += time
        products += time * bool(_PRODUCTS.search(event.key))
    return 100 * (1 - products / max(total, 1e-9))


def _memory_of(name: str, setting: Path) -> float:
    """The largest resident size, in MiB, of a process that makes two steps of one side."""
    done = subprocess.run([sys.executable, str(TOOL), '_memory', name, str(setting)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'the process that measures the memory of {name} failed:\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def memory_child(name: str, setting: str) -> None:
    """The process of ``_memory_of``."""
    weights, data, args = torch.load(setting, weights_only=False)
    torch.set_num_threads(args.threads)
    step = SIDES[name](weights, data, args)
    for _ in range(2):
        step()
    # A process would inherit the value of getrusage from its parent.
    print(json.dumps(process_mib('VmHWM')))


def measure(args: argparse.Namespace) -> Report:
    """The table of ``train`` and ``infer``."""
    data, source = load_images(args.batch, args.short_side)
    weights = random_weights(data, args.device)
    names = ['frdet', *([args.against] if args.against else [])]
    steps, memory, values = {}, {}, {}
    for name in names:
        if args.device.type == 'cuda':
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        steps[name] = SIDES[name](weights, data, args)
        for _ in range(args.warmup):
            values[name] = _same_names(steps[name]())
        if args.device.type == 'cuda':
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    times = alternate(steps, args.rounds, args.device, warmup=0)
    if args.device.type == 'cpu' and not args.no_memory:
        with tempfile.TemporaryDirectory() as folder:
            setting = Path(folder, 'setting.pt')
            args.threads = torch.get_num_threads()
            torch.save((weights, data, args), setting)
            memory = {name: _memory_of(name, setting) for name in names}
    height, width = (max(image.shape[i] for image in data['inputs']) for i in (1, 2))
    dtype = 'bfloat16' if args.amp else 'float32'
    what = 'Training step' if args.command == 'train' else 'Inference'
    report = Report(
        f'{what} of R50-FPN, {args.batch} {source} of up to {height} x {width}, {dtype}; {machine(args.device)}'
    )
    for name in names:
        median = times[name].median
        report.add(
            {
                'what': name,
                'median s': median,
                'min-max s': times[name].spread,
                's/image': median / args.batch,
                'ratio': times[names[-1]].median / median,
                'peak MiB': memory.get(name),
                '% outside products': share_outside_products(steps[name], args.device),
                **{key: float(value) for key, value in values[name].items()},
            }
        )
    report.notes.append(
        f'{args.rounds} rounds, in turn. Ratio: time over that of frdet. Samples of anchors and proposals are random: '
        'losses agree, but not to the digit.'
        if args.command == 'train'
        else f'{args.rounds} rounds, in turn, from the normalised batch to the final boxes.'
    )
    return report


def _same_names(values: Values) -> Values:
    """The losses of torchvision under frdet's names."""
    names = {
        'loss_objectness': 'loss_rpn_cls',
        'loss_rpn_box_reg': 'loss_rpn_bbox',
        'loss_classifier': 'loss_cls',
        'loss_box_reg': 'loss_bbox',
    }
    renamed = {names.get(key, key): value for key, value in values.items()}
    return {key: renamed[key] for key in ('loss', *names.values()) if key in renamed} or renamed
