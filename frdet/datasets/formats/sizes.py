"""Records of images for formats that do not state their sizes."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from frdet.datasets.annotations import image_size
from frdet.datasets.base import DetDataset
from frdet.datasets.locating import examples, locate
from frdet.progress import track


def image_records(
    dataset: DetDataset, names: Sequence[str], known: Mapping[str, tuple[int, int]] | None = None
) -> dict[str, dict[str, Any]]:
    """The items of ``Annotations.images`` for ``names`` below the image folder, by name, which is their id.

    A name without a file becomes that of the file that it means, see ``locate``. If a size is not in ``known``, it is
    read from the head of the image, 0.15 ms each; threads make that slower. An image whose size is not known then is
    left out in training, and a note says so.

    Args:
        dataset: its image folder, its notes.
        names: each once.
        known: (height, width) of the upright images by name.

    Raises:
        ValueError: no size is known, or in ``test_mode`` one is not.
    """
    folder, known = dataset.data_prefix['img'], known or {}
    located = locate(names, folder)
    records: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    pairs = zip(names, located.names, strict=True)
    for name, file in track(pairs, 'Reading sizes of images', total=len(names)):
        try:
            height, width = known[name] if name in known else image_size(os.path.join(folder, file))
        except ValueError as error:
            reasons[name] = str(error)
        else:
            records[name] = dict(id=name, file_name=file, height=height, width=width)
    if reasons:
        text = f'{len(reasons)} of {len(names)} images have no size, because they cannot be read: {examples(reasons)}'
        if dataset.test_mode or not records:
            raise ValueError(f'{text}. For the first: {next(iter(reasons.values()))}')
        dataset.notes.append(f'{dataset.ann_file}: {text}. They are left out')
    dataset.notes += located._replace(missing=[]).messages(dataset.ann_file, folder)
    return records
