"""The embedded data set: files in COCO's layout, and the component. The same seed gives the same files."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from frdet.datasets.coco import CocoDataset
from frdet.datasets.shapes.drawing import CLASSES, Shape, draw_image
from frdet.errors import ConfigError, DataError
from frdet.progress import track
from frdet.registry import DATASETS

VERSION = 1  # identifies a drawn set: raise it when the same seed draws another image
NUM_TRAIN, NUM_VAL = 600, 150
SPLITS = ('train', 'val')
IMAGE_SIZE = (112, 160)
MAX_OBJECTS = 5
VAL_OFFSET = 1_000_000  # ids of validation images start after this, whatever the size of the training split


@DATASETS.register_module()
class ShapesDataset(CocoDataset):
    """Drawn shapes. ``write_shapes`` draws both splits into ``data_root`` if the folder is missing or empty.

    Existing files are used. ``python -m frdet.datasets.shapes`` may have drawn them with other counts and sizes.

    Args:
        kwargs: as for ``CocoDataset``. ``data_root`` is required.
    """

    @property
    def how_to_get_masks(self) -> str:
        """Earlier versions of frdet drew no masks."""
        return f'Delete the folder {self.data_root}, and the shapes are drawn again, with masks'

    def prepare_files(self) -> None:
        """Draw the data set."""
        if is_absent(Path(self.data_root)):
            write_shapes(self.data_root)


def write_shapes(
    root: str | Path,
    *,
    num_train: int = NUM_TRAIN,
    num_val: int = NUM_VAL,
    image_size: Sequence[int] = IMAGE_SIZE,
    seed: int = 0,
) -> Path:
    """Draw the data set into ``root``: annotations/instances_{train,val}2017.json, train2017/, val2017/.

    An image depends only on the seed, its split and its number. The folder appears when everything is drawn, so an
    interrupted run leaves no folder. If several processes draw, the folder of the first one to finish stays.

    Args:
        root: folder to create. If it already holds the same data set, it stays as it is.
        num_train, num_val: images in a split.
        image_size: least and greatest height and width in pixels, which are random for every image.
        seed: seed of the drawing.

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
            'and sides of at least 32 pixels, the smaller one first'
        )
    recipe = {'version': VERSION, 'train': num_train, 'val': num_val, 'image_size': [low, high], 'seed': seed}
    if _is_drawn(root, recipe):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f'.{root.name}-') as folder:
            unfinished = Path(folder, 'shapes')
            for split in SPLITS:
                _write_split(unfinished, split, recipe)
            try:
                unfinished.rename(root)
            except OSError:  # another process was faster, unless something else is there
                if not _is_drawn(root, recipe):
                    raise
    except OSError as error:
        raise DataError(f'The drawn data set cannot be written to {root}: {error}') from None
    return root


def is_absent(root: Path) -> bool:
    """Whether ``root`` is missing, or an empty folder."""
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def _is_drawn(root: Path, recipe: dict[str, Any]) -> bool:
    """Whether ``root`` holds the data set of ``recipe``; False if it is absent. Anything else is a DataError."""
    if is_absent(root):
        return False
    try:
        info = json.loads((root / 'annotations/instances_val2017.json').read_text(encoding='utf-8'))['info']
        found = info['recipe']
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f'{root} exists and holds no drawn shapes: choose another folder, or empty this one') from None
    if found != recipe:
        raise DataError(f'{root} holds shapes of {found}, expected {recipe}: delete the folder to draw them again')
    return True


def _write_split(folder: Path, split: str, recipe: dict[str, Any]) -> None:
    images_folder = folder / f'{split}2017'
    images_folder.mkdir(parents=True)
    (folder / 'annotations').mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (low, high), offset = recipe['image_size'], SPLITS.index(split) * VAL_OFFSET
    for number in track(range(recipe[split]), f'Drawing {split} images'):
        rng = np.random.default_rng([recipe['seed'], SPLITS.index(split), number])
        height, width = rng.integers(low, high + 1, size=2).tolist()
        image_id = offset + number + 1
        name = f'{image_id:012d}.jpg'
        pixels, shapes = draw_image(rng, height, width, MAX_OBJECTS)
        Image.fromarray(pixels).save(images_folder / name, quality=92)
        images.append({'id': image_id, 'file_name': name, 'height': height, 'width': width})
        for shape in shapes:
            rows, columns = (np.flatnonzero(shape.mask.any(axis=axis)).tolist() for axis in (1, 0))
            box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
            head = {'id': offset + len(annotations) + 1, 'image_id': image_id, 'category_id': shape.label + 1}
            mask = {'segmentation': _segmentation(shape), 'area': int(shape.mask.sum())}
            annotations.append({**head, 'bbox': box, **mask, 'iscrowd': 0})
    content = {
        'info': {'description': 'Drawn shapes', 'recipe': recipe},
        'images': images,
        'annotations': annotations,
        'categories': [{'id': label + 1, 'name': name, 'supercategory': 'shape'} for label, name in enumerate(CLASSES)],
    }
    (folder / f'annotations/instances_{split}2017.json').write_text(json.dumps(content), encoding='utf-8')


def _segmentation(shape: Shape) -> list[list[float]] | dict[str, Any]:
    """Polygons if the whole shape is seen and has no hole; otherwise the RLE of the visible pixels."""
    if shape.corners and shape.mask.sum() == shape.area:
        return [points.round(2).ravel().tolist() for points in shape.corners]
    rle = coco_mask.encode(np.asfortranarray(shape.mask, dtype=np.uint8))
    return {'size': list(shape.mask.shape), 'counts': rle['counts'].decode()}
