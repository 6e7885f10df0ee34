"""A data set with one of everything that can be wrong."""

import io
from typing import Any

import numpy as np
from PIL import Image

GREY16 = np.array([[0, 255, 256], [4660, 65280, 65535]], dtype=np.uint16)


def jpeg(mode: str = 'RGB', **options: Any) -> bytes:
    """A JPEG of 30 x 20 pixels."""
    stream = io.BytesIO()
    Image.new(mode, (30, 20), 90 if mode == 'L' else None).save(stream, 'jpeg', **options)
    return stream.getvalue()


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, 'png')
    return stream.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


#: id -> file name, content, (width, height) of the record; every image but these is right.
FILES: dict[int, tuple[str, bytes | None, tuple[int, int]]] = {
    1: ('good.jpg', jpeg(), (30, 20)),
    2: ('missing.jpg', None, (30, 20)),
    3: ('text.jpg', b'no image', (30, 20)),
    4: ('cut.png', png(Image.effect_noise((30, 20), 90))[:-200], (30, 20)),
    5: ('size.jpg', jpeg(), (20, 30)),
    6: ('turned.jpg', jpeg(exif=turned()), (20, 30)),
    7: ('grey.jpg', jpeg('L'), (30, 20)),
    8: ('cmyk.jpg', jpeg('CMYK'), (30, 20)),
    9: ('palette.png', png(Image.new('P', (30, 20))), (30, 20)),
    10: ('grey16.png', png(Image.fromarray(GREY16)), (3, 2)),
    11: ('alpha.png', png(Image.new('RGBA', (30, 20))), (30, 20)),
}

BOX = [1, 2, 10, 5]


def broken_coco() -> dict[str, Any]:
    images = [{'id': i, 'file_name': f, 'width': w, 'height': h} for i, (f, _, (w, h)) in FILES.items()]
    boxes = [
        BOX,
        [1, 2, 0, 5],  # no area
        [1, 2, 10, -5],
        [1, 2, float('nan'), 5],
        [31, 2, 4, 4],  # of 30
        [25, 2, 7, 5],  # 2 pixels too far
        [25, 2, 5.5, 5],  # half a pixel too far, as rounded
        [1, 2, 3],
    ]
    annotations: list[Any] = [
        {'id': 100 + i, 'image_id': 1, 'category_id': 1, 'bbox': box} for i, box in enumerate(boxes)
    ]
    annotations += [
        {'id': 100, 'image_id': 1, 'category_id': 1, 'bbox': BOX},
        {'id': 109, 'image_id': 77, 'category_id': 1, 'bbox': BOX},
        {'id': 110, 'image_id': 1, 'category_id': 8, 'bbox': BOX},
        'no object',
    ]
    return {
        'images': [*images, {**images[0], 'file_name': 'twice.jpg'}, {**images[0], 'id': 90, 'height': '20'}],
        'annotations': annotations,
        'categories': [{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'a'}, {'id': None, 'name': 'b'}],
    }
