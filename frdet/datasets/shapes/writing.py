"""Writing the embedded data set: files in COCO's layout that are the same for the same seed."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frdet.datasets.shapes.drawing import CLASSES, draw_image
from frdet.errors import ConfigError, DataError
from frdet.progress import track

VERSION = 1  # part of what identifies a drawn set: raise it when the same seed draws another image
NUM_TRAIN, NUM_VAL = 600, 150
IMAGE_SIZE = (112, 160)
MAX_OBJECTS = 5
VAL_OFFSET = 1_000_000  # ids of validation images start after this, so that no split's size moves them


def write_shapes(
    root: str | Path,
    *,
    num_train: int = NUM_TRAIN,
    num_val: int = NUM_VAL,
    image_size: Sequence[int] = IMAGE_SIZE,
    seed: int = 0,
) -> Path:
    """Draw the data set into ``root``: annotations/instances_{train,val}2017.json, train2017/, val2017/.

    An image depends on the seed, its split and its number alone. The folder appears at once, when all is drawn: a run
    that is interrupted leaves none, and of several processes the first to finish places it.

    Args:
        root: folder to create; one that holds this very data set is left as it is.
        num_train, num_val: images in a split.
        image_size: least and greatest height and width in pixels, drawn on their own for every image.
        seed: of all that is drawn.

    Returns:
        ``root``.

    Raises:
        ConfigError: a count or size is wrong.
        DataError: ``root`` holds something else, or cannot be written.
    """
    root = Path(root)
    low, high = image_size
    if min(num_train, num_val) < 1 or not 32 <= low <= high:
        raise ConfigError(
            f'{num_train} and {num_val} images of {low} to {high} pixels: expected at least 1 image in each split, '
            'and sides of at least 32 pixels, the least first'
        )
    recipe = {'version': VERSION, 'train': num_train, 'val': num_val, 'image_size': [low, high], 'seed': seed}
    if _is_drawn(root, recipe):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f'.{root.name}-') as folder:
            unfinished = Path(folder, 'shapes')
            _write_split(unfinished, 'train', num_train, (low, high), recipe)
            _write_split(unfinished, 'val', num_val, (low, high), recipe)
            _move(unfinished, root, recipe)
    except OSError as error:
        raise DataError(f'The drawn data set cannot be written to {root}: {error}') from None
    return root


def is_absent(root: Path) -> bool:
    """Whether nothing is at ``root``, or an empty folder."""
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def _is_drawn(root: Path, recipe: dict[str, Any]) -> bool:
    """Whether ``root`` holds the data set of ``recipe``; False where nothing is there.

    Raises:
        DataError: something else is there.
    """
    if is_absent(root):
        return False
    try:
        info = json.loads((root / 'annotations/instances_val2017.json').read_text(encoding='utf-8'))['info']
        found = info['recipe']
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f'{root} exists and holds no drawn shapes: choose another folder, or empty this one') from None
    if found != recipe:
        raise DataError(f'{root} holds shapes of {found}, expected {recipe}: delete the folder to draw them anew')
    return True


def _move(unfinished: Path, root: Path, recipe: dict[str, Any]) -> None:
    try:
        unfinished.rename(root)
    except OSError:
        # Another process was faster. Where it was not, say what stands in the way.
        if not _is_drawn(root, recipe):
            raise
        shutil.rmtree(unfinished)


def _write_split(folder: Path, split: str, count: int, sides: tuple[int, int], recipe: dict[str, Any]) -> None:
    images_folder = folder / f'{split}2017'
    images_folder.mkdir(parents=True)
    (folder / 'annotations').mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in track(range(count), f'Drawing {split} images'):
        rng = np.random.default_rng([recipe['seed'], ('train', 'val').index(split), number])
        height, width = (int(side) for side in rng.integers(sides[0], sides[1] + 1, size=2))
        image_id = number + 1 + (VAL_OFFSET if split == 'val' else 0)
        name = f'{image_id:012d}.jpg'
        pixels, shapes = draw_image(rng, height, width, MAX_OBJECTS)
        Image.fromarray(pixels).save(images_folder / name, quality=92)
        images.append({'id': image_id, 'file_name': name, 'height': height, 'width': width})
        for shape in shapes:
            annotation_id = (VAL_OFFSET if split == 'val' else 0) + len(annotations) + 1
            annotations.append({'id': annotation_id, 'image_id': image_id, **_annotation(shape.label, shape.mask)})
    content = {
        'info': {'description': 'Drawn shapes', 'recipe': recipe},
        'images': images,
        'annotations': annotations,
        'categories': [{'id': label + 1, 'name': name, 'supercategory': 'shape'} for label, name in enumerate(CLASSES)],
    }
    (folder / f'annotations/instances_{split}2017.json').write_text(json.dumps(content), encoding='utf-8')


def _annotation(label: int, mask: np.ndarray) -> dict[str, Any]:
    """Class, tight box and area of what is seen of a shape, ``mask`` (H, W) bool."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    return {'category_id': label + 1, 'bbox': box, 'area': int(mask.sum()), 'iscrowd': 0}
