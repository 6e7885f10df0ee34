"""A small data set in COCO's layout, which a test changes before it is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def small_coco() -> dict[str, Any]:
    """Four images out of order: 7 has two boxes and a crowd, 3 only a crowd, 5 one box, 9 none."""
    return {
        'images': [
            {'id': 7, 'file_name': 'seven.jpg', 'height': 60, 'width': 100},
            {'id': 3, 'file_name': 'three.jpg', 'height': 60, 'width': 40},
            {'id': 9, 'file_name': 'nine.jpg', 'height': 50, 'width': 50},
            {'id': 5, 'file_name': 'five.jpg', 'height': 80, 'width': 40},
        ],
        'annotations': [
            {'id': 1, 'image_id': 7, 'category_id': 40, 'bbox': [10, 20, 30, 40.5], 'area': 9, 'iscrowd': 0},
            {'id': 2, 'image_id': 5, 'category_id': 2, 'bbox': [0.5, 1.5, 10, 20], 'area': 9},
            {'id': 3, 'image_id': 7, 'category_id': 11, 'bbox': [5, 5, 10, 10], 'area': 9, 'iscrowd': 1},
            {'id': 4, 'image_id': 3, 'category_id': 2, 'bbox': [0, 0, 10, 10], 'area': 9, 'iscrowd': 1},
            {'id': 5, 'image_id': 7, 'category_id': 2, 'bbox': [-5, 0, 20, 10], 'area': 9, 'iscrowd': 0},
        ],
        'categories': [{'id': 40, 'name': 'cat'}, {'id': 2, 'name': 'person'}, {'id': 11, 'name': 'car'}],
    }


@pytest.fixture
def content() -> dict[str, Any]:
    return small_coco()


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes annotations to ``<root>/ann.json``, grey images to ``<root>/images``, and returns ``<root>``."""

    def write(content: Any) -> Path:
        (tmp_path / 'images').mkdir(exist_ok=True)
        (tmp_path / 'ann.json').write_text(content if isinstance(content, str) else json.dumps(content))
        for image in small_coco()['images']:
            pixels = np.full((image['height'], image['width'], 3), 128, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'images' / image['file_name'])
        return tmp_path

    return write
