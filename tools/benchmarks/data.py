"""Reading images, compared with plain Pillow and NumPy, and the memory of data loader workers."""

import argparse
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.timing import CPU, Report, Run, alternate, machine, process_mib
from frdet.datasets import Annotations, DetDataset
from frdet.datasets.transforms.geometry import shortest_edge_size
from frdet.errors import DataError
from frdet.progress import track
from frdet.registry import TRANSFORMS

ENDINGS = ('.jpg', '.jpeg', '.png')


def reading(args: argparse.Namespace) -> Report:
    """Milliseconds for an image from its file to the tensor, in all, for each transform, and for the plain way."""
    paths, max_size = _find_images(args.images, args.count), args.short_side * 1333 // 800
    pipeline = [
        dict(type='LoadImage'),
        dict(type='ResizeShortestEdge', short_side=args.short_side, max_size=max_size),
        dict(type='RandomFlip', prob=1.0),
        dict(type='PackDetInputs'),
    ]
    steps = [TRANSFORMS.build(step) for step in pipeline]

    def run(step: Callable[[dict], Any], results: dict[str, Any]) -> Any:
        """What the step makes of ``results``, which stay as they are, so that they can be used again."""
        return step(dict(results))

    def plain(path: Path) -> torch.Tensor:
        """A loader in a few lines: decode, resize, mirror, channels first."""
        image = Image.open(path).convert('RGB')
        height, width = shortest_edge_size(image.height, image.width, args.short_side, max_size)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        return torch.from_numpy(np.ascontiguousarray(pixels[:, ::-1].transpose(2, 0, 1)))

    times: dict[str, list[float]] = defaultdict(list)
    for path in track(paths, 'Images'):
        given: dict[str, Any] = {'img_path': str(path)}
        runs: dict[str, Run] = {'frdet': partial(run, Compose(steps), given), 'Pillow and NumPy': partial(plain, path)}
        for step in steps:
            runs[f'of it {type(step).__name__}'] = partial(run, step, given)
            given = run(step, given)
        if not given['inputs'].flip(0).equal(plain(path)):
            raise AssertionError(f'{path}: the pixels are not those of Pillow')
        for name, found in alternate(runs, args.rounds, CPU).items():
            times[name].append(1e3 * found.median)
    report = Report(
        f'{len(paths)} images to a short side of {args.short_side}, mirrored, in one thread; {machine(CPU)}'
    )
    means = {name: statistics.mean(found) for name, found in times.items()}
    for name, mean in means.items():
        report.add({'what': name, 'ms an image': mean, '% of the plain way': 100 * mean / means['Pillow and NumPy']})
    report.notes.append(
        f'Means over images of the medians of {args.rounds} rounds, in turn. Pixels are equal to the last bit.'
    )
    return report


def _find_images(folder: Path | None, count: int) -> list[Path]:
    if folder is None:
        if not (root := os.environ.get('FRDET_DATA_ROOT')):
            raise DataError('No images to read: give a folder with --images, or set FRDET_DATA_ROOT')
        folder = Path(root, 'val2017')
    if not folder.is_dir():
        raise DataError(f'There is no folder {folder}: give one that holds images with --images')
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not found:
        raise DataError(f'{folder} holds no image ({", ".join(ENDINGS)}): give another folder with --images')
    return found[:count]


class DrawnRecords(DetDataset):
    """Records like COCO's without files: 7 boxes in an image on average."""

    def __init__(self, count: int):
        self.count = count
        super().__init__(ann_file='', data_prefix={'img': ''})

    def read(self) -> Annotations:
        rng, boxes = np.random.default_rng(0), 7 * self.count
        return Annotations(
            images=[dict(id=i, file_name=f'{i:012d}.jpg', height=480, width=640) for i in range(self.count)],
            categories={str(number): number for number in range(80)},
            image_index=rng.integers(self.count, size=boxes),
            category_index=rng.integers(80, size=boxes),
            boxes=rng.random((boxes, 4)),
        )


def workers(args: argparse.Namespace) -> Report:
    """PSS of the workers after every epoch, which reads each record, and the number of copies of the records."""
    dataset = DrawnRecords(args.records)
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=256,
        shuffle=True,
        num_workers=args.workers,
        collate_fn=lambda records: os.getpid(),
        persistent_workers=True,
        multiprocessing_context='fork',
    )
    packed = dataset.data_bytes.nbytes / 2**20
    # The address is the same in every process. The first page is shared with other data, so the middle is taken.
    address = dataset.data_bytes.ctypes.data + dataset.data_bytes.nbytes // 2
    report = Report(f'{args.records} records, {packed:.1f} MiB packed, {args.workers} workers')
    for epoch in track(range(1, args.epochs + 1), 'Epochs'):
        pids = sorted(set(loader))
        sizes = [process_mib('Pss', Path(f'/proc/{pid}/smaps_rollup')) for pid in pids]
        copies = sum(mapping_mib(pid, address) for pid in [os.getpid(), *pids]) / packed
        spread = f'{min(sizes):.1f}-{max(sizes):.1f}'
        row = {'epoch': epoch, 'PSS of a worker, MiB': statistics.mean(sizes), 'min-max': spread}
        report.add({**row, 'copies of the records': copies})
    report.notes.append('Copies: the PSS of the records in all processes together, divided by their packed size.')
    return report


def mapping_mib(pid: int, address: int) -> float:
    """Proportional size (PSS) of a process's memory mapping at ``address``, in MiB."""
    text = Path(f'/proc/{pid}/smaps').read_text()
    for begin, end, size in re.findall(r'^([0-9a-f]+)-([0-9a-f]+) .*?^Pss: +(\d+) kB', text, re.M | re.S):
        if int(begin, 16) <= address < int(end, 16):
            return int(size) / 1024
    raise RuntimeError(f'process {pid} has no memory at {address:#x}')
