"""Reading images against plain Pillow and NumPy, and the memory of data loader workers."""

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
from torch.utils.data import DataLoader, get_worker_info

from benchmarks.models import FOLDER
from benchmarks.timing import Report, alternate, machine
from frdet.datasets import CocoDataset
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
    """What a loader of a few lines does: decode, resize, mirror, channels first."""
    image = Image.open(path).convert('RGB')
    height, width = shortest_edge_size(image.height, image.width, short_side, max_size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(np.ascontiguousarray(pixels[:, ::-1].transpose(2, 0, 1)))


def measure_input(args: argparse.Namespace) -> Report:
    """Milliseconds an image from its file to the tensor, each stage, and the plain way; the pixels are compared."""
    paths, max_size = _find_images(args.images, args.count), args.short_side * 1333 // 800
    pipeline = [
        dict(type='LoadImage'),
        dict(type='ResizeShortestEdge', short_side=args.short_side, max_size=max_size),
        dict(type='RandomFlip', prob=1.0),
        dict(type='PackDetInputs'),
    ]
    stages: dict[str, Callable[[dict], dict]] = {str(s['type']): TRANSFORMS.build(s) for s in pipeline}
    stage_times: dict[str, list[float]] = {name: [] for name in stages}
    sides: dict[str, list[float]] = {'frdet': [], 'Pillow and NumPy': []}

    def ours(path: Path) -> torch.Tensor:
        results: dict[str, Any] = {'img_path': str(path)}
        for name, stage in stages.items():
            start = time.perf_counter()
            results = stage(results)
            stage_times[name].append(time.perf_counter() - start)
        return results['inputs']

    for path in paths:
        if not ours(path).flip(0).equal(_plain(path, args.short_side, max_size)):
            raise AssertionError(f'{path}: the pixels are not those of Pillow')
    for times in stage_times.values():
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
    for name, times in sides.items():
        mean = statistics.mean(times)
        report.rows.append({'what': name, 'ms an image': mean, '% of the plain way': 100 * mean / plain})
    for name, times in stage_times.items():
        mean = 1e3 * statistics.mean(times)
        report.rows.append({'what': f'of it {name}', 'ms an image': mean, '% of the plain way': 100 * mean / plain})
    report.notes.append(
        f'Means over images of the medians of {args.rounds} rounds, in turn. Pixels are equal to the last bit.'
    )
    return report


class DrawnRecords(CocoDataset):
    """Records like COCO's, without files: 7 boxes an image."""

    def __init__(self, count: int):
        self.count = count
        super().__init__(ann_file='', data_prefix={'img': ''})

    def load_data_list(self) -> list[dict[str, Any]]:
        rng, record = np.random.default_rng(0), dict(height=480, width=640)
        sizes = rng.poisson(7, self.count)
        return [
            {
                'img_id': i,
                'file_name': f'{i:012d}.jpg',
                **record,
                'boxes': rng.random((n, 4), dtype=np.float32).tobytes(),
                'labels': rng.integers(80, size=n, dtype=np.int32).tobytes(),
                'crowd': np.zeros(n, dtype=bool).tobytes(),
            }
            for i, n in enumerate(sizes)
        ]


def proportional_size(pid: int | str, address: int | None = None) -> float:
    """MiB of a process, shared pages in proportion (PSS); of the mapping at ``address`` alone where it is given."""
    if address is None:
        text = Path(f'/proc/{pid}/smaps_rollup').read_text()
        return _kib(text.splitlines(), 'Pss:') / 1024
    inside = False
    for line in Path(f'/proc/{pid}/smaps').read_text().splitlines():
        head = line.split()[0]
        if '-' in head and not head.endswith(':'):
            begin, end = (int(part, 16) for part in head.split('-'))
            inside = begin <= address < end
        elif inside and head == 'Pss:':
            return int(line.split()[1]) / 1024
    raise RuntimeError(f'process {pid} has no memory at {address:#x}')


def _kib(lines: list[str], key: str) -> int:
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def _pids(_: list) -> int:
    info = get_worker_info()
    return os.getpid() if info else 0


def measure_memory(args: argparse.Namespace) -> Report:
    """PSS of the workers after every epoch in which each record is read, and how many copies of the records exist."""
    dataset = DrawnRecords(args.records)
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=256,
        shuffle=True,
        num_workers=args.workers,
        collate_fn=_pids,
        persistent_workers=True,
        multiprocessing_context='fork',
    )
    packed = dataset.data_bytes.nbytes / 2**20
    # Where they lie is the same in every process; the middle, since the allocator's neighbours share the first page.
    address = dataset.data_bytes.ctypes.data + dataset.data_bytes.nbytes // 2
    report = Report(f'{args.records} records, {packed:.1f} MiB packed, {args.workers} workers')
    for epoch in track(range(1, args.epochs + 1), 'Epochs'):
        workers = sorted(set(loader))
        sizes = [proportional_size(pid) for pid in workers]
        copies = sum(proportional_size(pid, address) for pid in [os.getpid(), *workers]) / packed
        report.rows.append(
            {
                'epoch': epoch,
                'PSS of a worker, MiB': statistics.mean(sizes),
                'min-max': f'{min(sizes):.1f}-{max(sizes):.1f}',
                'copies of the records': copies,
            }
        )
    report.notes.append('Copies: the PSS of the records in all processes together, over their packed size.')
    return report
