"""Reading images with frdet, compared with plain Pillow and NumPy."""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.models import FOLDER
from benchmarks.timing import Report, alternate, machine
from frdet.datasets.transforms.geometry import shortest_edge_size
from frdet.errors import DataError
from frdet.progress import track
from frdet.registry import TRANSFORMS

CPU = torch.device('cpu')
ENDINGS = ('.jpg', '.jpeg', '.png')


def _find_images(folder: Path | None, count: int) -> list[Path]:
    if folder is None:
        if not (root := os.environ.get('FRDET_DATA_ROOT')):
            raise DataError('No images to read: give a folder with --images, or set FRDET_DATA_ROOT')
        folder = Path(root, FOLDER)
    if not folder.is_dir():
        raise DataError(f'There is no folder {folder}: give one that holds images with --images')
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not found:
        raise DataError(f'{folder} holds no image ({", ".join(ENDINGS)}): give another folder with --images')
    return found[:count]


def _plain(path: Path, short_side: int, max_size: int) -> torch.Tensor:
    """A loader in a few lines: decode, resize, mirror, channels first."""
    image = Image.open(path).convert('RGB')
    height, width = shortest_edge_size(image.height, image.width, short_side, max_size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(np.ascontiguousarray(pixels[:, ::-1].transpose(2, 0, 1)))


def measure(args: argparse.Namespace) -> Report:
    """Milliseconds for an image from its file to the tensor, in all, for each transform, and for the plain way."""
    paths, max_size = _find_images(args.images, args.count), args.short_side * 1333 // 800
    pipeline = [
        dict(type='LoadImage'),
        dict(type='ResizeShortestEdge', short_side=args.short_side, max_size=max_size),
        dict(type='RandomFlip', prob=1.0),
        dict(type='PackDetInputs'),
    ]
    steps: dict[str, Callable[[dict], dict]] = {str(s['type']): TRANSFORMS.build(s) for s in pipeline}
    step_times: dict[str, list[float]] = {name: [] for name in steps}
    sides: dict[str, list[float]] = {'frdet': [], 'Pillow and NumPy': []}

    def ours(path: Path) -> torch.Tensor:
        results: dict[str, Any] = {'img_path': str(path)}
        for name, step in steps.items():
            start = time.perf_counter()
            results = step(results)
            step_times[name].append(time.perf_counter() - start)
        return results['inputs']

    for path in paths:
        if not ours(path).flip(0).equal(_plain(path, args.short_side, max_size)):
            raise AssertionError(f'{path}: the pixels are not those of Pillow')
    for times in step_times.values():
        times.clear()
    for path in track(paths, 'Images'):
        runs = {
            'frdet': lambda path=path: ours(path),
            'Pillow and NumPy': lambda path=path: _plain(path, args.short_side, max_size),
        }
        for name, found in alternate(runs, args.rounds, CPU).items():
            sides[name].append(1e3 * found.median)
    plain = statistics.mean(sides['Pillow and NumPy'])
    title = f'{len(paths)} images to a short side of {args.short_side}, mirrored, in one thread; {machine(CPU)}'
    report = Report(title)
    inner = {f'of it {name}': [1e3 * time for time in times] for name, times in step_times.items()}
    for name, times in {**sides, **inner}.items():
        mean = statistics.mean(times)
        report.add({'what': name, 'ms an image': mean, '% of the plain way': 100 * mean / plain})
    report.notes.append(
        f'Means over images of the medians of {args.rounds} rounds, in turn. Pixels are equal to the last bit.'
    )
    return report
