"""Crops around objects, with the boxes near them."""

from collections.abc import Sequence

import numpy as np

from frdet.datasets.masks import decode_rle
from frdet.datasets.transforms.loading import read_image
from frdet.errors import DataError
from frdet.insight.outlines import outline_of
from frdet.insight.page import Mark
from frdet.insight.trace.model import Around, Card
from frdet.visualization.drawing import shrunk

SIDE = 360  # pixels of the longer side of a crop
MARGIN = 1.0  # around an object, in its own longer side
LEAST = 32  # pixels around a small object
OWN = 'this object'
#: Colour and line of every kind of box; no two kinds share both, for those who cannot tell two colours apart.
LOOKS = {
    OWN: ('blue', 'solid'),
    'object': ('grey', 'solid'),
    'anchor': ('orange', 'dotted'),
    'proposal': ('purple', 'dashed'),
    'detection': ('red', 'dashdot'),
}


def crop(card: Card, box: Sequence[float], name: str) -> tuple[np.ndarray, list[Mark]] | None:
    """The part of an image around an object (xyxy in its pixels), and a mark for every box that lies in it.

    None if the image cannot be read.
    """
    try:
        image = read_image(card.path)
    except DataError:
        return None
    height, width = image.shape[:2]
    margin = max(MARGIN * max(box[2] - box[0], box[3] - box[1]), LEAST)
    x1, y1 = (min(max(int(v - margin), 0), size - 1) for v, size in zip(box[:2], (width, height), strict=True))
    x2, y2 = (
        max(min(int(v + margin) + 1, size), at + 1)
        for v, size, at in zip(box[2:], (width, height), (x1, y1), strict=True)
    )
    picture, scale = shrunk(np.ascontiguousarray(image[y1:y2, x1:x2, ::-1]), SIDE)

    def mark(around: Around) -> Mark:
        outline = ''
        if around.mask is not None and tuple(around.mask['size']) == (height, width):
            rle = {'size': around.mask['size'], 'counts': around.mask['counts'].encode('ascii')}
            outline = outline_of(decode_rle(rle)[y1:y2, x1:x2], picture.shape)
        moved = (np.asarray(around.box, dtype=float) - [x1, y1, x1, y1]) * scale
        tags = {'kind': 'other object' if around.kind == 'object' else around.kind}
        label = name if around.kind == OWN else ''
        return Mark(moved.tolist(), around.text, *LOOKS[around.kind], label, outline, tags=tags)

    inside = [one for one in card.around if one.box[0] < x2 and one.box[1] < y2 and one.box[2] > x1 and one.box[3] > y1]
    inside.sort(key=lambda one: list(LOOKS).index(one.kind), reverse=True)
    return picture, [mark(one) for one in (*inside, Around(OWN, box, f'{name}, as annotated', card.mask))]
