"""The memory of data loader workers."""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, get_worker_info

from benchmarks.timing import Report, process_mib
from frdet.datasets import CocoDataset
from frdet.progress import track


class DrawnRecords(CocoDataset):
    """Records like COCO's without files: 7 boxes in an image on average."""

    def __init__(self, count: int):
        self.count = count
        super().__init__(ann_file='', data_prefix={'img': ''})

    def load_data_list(self) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        sizes = rng.poisson(7, self.count)
        return [
            {
                'img_id': i,
                'file_name': f'{i:012d}.jpg',
                'height': 480,
                'width': 640,
                'boxes': rng.random((n, 4), dtype=np.float32).tobytes(),
                'labels': rng.integers(80, size=n, dtype=np.int32).tobytes(),
                'crowd': np.zeros(n, dtype=bool).tobytes(),
            }
            for i, n in enumerate(sizes)
        ]


def proportional_size(pid: int | str, address: int | None = None) -> float:
    """Proportional size (PSS) of a process, or only of its mapping at ``address``, in MiB."""
    if address is None:
        return process_mib('Pss', Path(f'/proc/{pid}/smaps_rollup'))
    inside = False
    for line in Path(f'/proc/{pid}/smaps').read_text().splitlines():
        head = line.split()[0]
        if '-' in head and not head.endswith(':'):
            begin, end = (int(part, 16) for part in head.split('-'))
            inside = begin <= address < end
        elif inside and head == 'Pss:':
            return int(line.split()[1]) / 1024
    raise RuntimeError(f'process {pid} has no memory at {address:#x}')


def _pids(_: list) -> int:
    info = get_worker_info()
    return os.getpid() if info else 0


def measure(args: argparse.Namespace) -> Report:
    """PSS of the workers after every epoch, which reads each record, and the number of copies of the records."""
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
    # The address is the same in every process. The first page is shared with other data, so the middle is taken.
    address = dataset.data_bytes.ctypes.data + dataset.data_bytes.nbytes // 2
    report = Report(f'{args.records} records, {packed:.1f} MiB packed, {args.workers} workers')
    for epoch in track(range(1, args.epochs + 1), 'Epochs'):
        workers = sorted(set(loader))
        sizes = [proportional_size(pid) for pid in workers]
        copies = sum(proportional_size(pid, address) for pid in [os.getpid(), *workers]) / packed
        spread = f'{min(sizes):.1f}-{max(sizes):.1f}'
        row = {'epoch': epoch, 'PSS of a worker, MiB': statistics.mean(sizes), 'min-max': spread}
        report.add({**row, 'copies of the records': copies})
    report.notes.append('Copies: the PSS of the records in all processes together, divided by their packed size.')
    return report
