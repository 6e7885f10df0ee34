"""Boxes and masks on an image, one fixed colour for each class and readable labels; pictures next to each other."""

import bisect
import colorsys
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from frdet.visualization.fonts import Lettering, legible

GOLDEN_RATIO = 0.618034
READABLE_SIDE = 640  # images whose sides are all shorter are enlarged, so that text fits between objects
FILL = 0.4  # opacity of a mask
PAPER, INK = (24, 26, 30), (235, 235, 235)  # of sheets

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]


def class_colour(label: int) -> Colour:
    """The RGB colour of a class. Hues are a golden section apart, so that neighbours and the first classes differ."""
    hue = (0.02 + label * GOLDEN_RATIO) % 1.0
    saturation, value = ((0.85, 0.95), (0.6, 1.0), (0.95, 0.7))[label // 7 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_boxes(
    image: np.ndarray,
    boxes: Any,
    labels: Any,
    scores: Any = None,
    classes: Sequence[str] | None = None,
    *,
    masks: Any = None,
    dashed: bool | np.ndarray = False,
    min_long_side: int = READABLE_SIDE,
) -> np.ndarray:
    """A copy of an image with boxes and the names of their classes, and with the masks of the objects.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) xyxy in pixels of ``image``. Boxes, labels and scores are arrays or tensors.
        labels: (n,) integers.
        scores: (n,), written after the class. The label of the best score is on top.
        classes: name of every label in any script (see ``fonts.legible``). A label without a name is shown as a number.
        masks: (n, h, w), or n arrays or tensors (h, w), not 0 inside the object. Each covers the whole image, whatever
            its resolution. Objects are filled and have a contour, under all boxes.
        dashed: draw dashed lines, for boxes that are neither object nor background; or (n,) bool, the dashed boxes.
        min_long_side: a smaller image is enlarged by a whole factor until its longer side is at least this.

    Returns:
        (H', W', 3) uint8 RGB, H' = H and W' = W unless enlarged.

    Raises:
        ValueError: shapes do not fit.
    """
    boxes, labels = _array(boxes).reshape(-1, 4), _array(labels).reshape(-1)
    scores = None if scores is None else _array(scores).reshape(-1)
    if len(labels) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
        raise ValueError(f'{len(boxes)} boxes, {len(labels)} labels, {"no" if scores is None else len(scores)} scores')
    if masks is not None and len(masks) != len(boxes):
        raise ValueError(f'{len(boxes)} boxes, {len(masks)} masks')
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f'expected an image (H, W, 3) of uint8, found {image.shape} of {image.dtype}')
    picture, factor = Image.fromarray(image), max(1, -(-min_long_side // max(image.shape[:2])))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)
    boxes = boxes * factor
    long_side = max(picture.size)
    names = legible(classes or ())
    line, letters = max(2, round(long_side / 260)), Lettering((*names, '0123456789.'), max(13, round(long_side / 44)))
    # Large boxes first, so that they do not cover small ones. Labels after all boxes, the best score last.
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-areas, kind='stable')
    for index in order if masks is not None else ():
        _paint(picture, _array(masks[index]), class_colour(int(labels[index])), -(-line // 2))
    draw = ImageDraw.Draw(picture)
    is_dashed = np.broadcast_to(dashed, len(boxes))
    for index in order:
        _outline(draw, boxes[index], class_colour(int(labels[index])), line, bool(is_dashed[index]))
    chips: list[tuple[Box, str, Colour]] = []
    for index in range(len(boxes)) if scores is None else np.argsort(-scores, kind='stable'):
        label = int(labels[index])
        name = names[label] if 0 <= label < len(names) else str(label)
        text = _fitted(name, '' if scores is None else f' {scores[index]:.2f}', letters, picture.width)
        place = _place_chip(boxes[index], text, letters, picture.size, [place for place, _, _ in chips])
        chips.append((place, text, class_colour(label)))
    for place, text, colour in reversed(chips):
        _chip(draw, place, text, letters, colour)
    return np.asarray(picture)


def save_image(image: np.ndarray, path: Any) -> None:
    """Write (H, W, 3) uint8 RGB to ``path`` in the format of its ending."""
    Image.fromarray(image).save(path, quality=92)


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, 'detach') else np.asarray(values)


def _paint(picture: Image.Image, mask: np.ndarray, colour: Colour, line: int) -> None:
    """Fill a mask (h, w) of a picture, which is changed, and draw its contour, ``line`` pixels wide."""
    rows, columns = (nearest(new, old) for new, old in zip(picture.size[::-1], mask.shape, strict=True))
    window = []
    for axis, places in enumerate((rows, columns)):
        hit = np.flatnonzero(np.take(mask.any(axis=1 - axis), places))
        if not len(hit):
            return
        window.append(slice(hit[0], hit[-1] + 1))
    inside = mask[rows[window[0]]][:, columns[window[1]]] != 0
    core = _eroded(inside, line)
    corner = int(window[1].start), int(window[0].start)
    for pixels, opacity in ((core, FILL), (inside & ~core, 1.0)):
        picture.paste(colour, corner, Image.fromarray(pixels * np.uint8(round(255 * opacity))))


def _eroded(inside: np.ndarray, by: int) -> np.ndarray:
    """The pixels (h, w) that are at least ``by`` pixels away from all that are not inside."""
    core = np.pad(inside, by)
    for _ in range(2):  # along each axis, with spans of 2, 4, ... pixels that are inside
        span = 1
        while span < 2 * by + 1:
            step = min(span, 2 * by + 1 - span)
            core = core[step:] & core[:-step]
            span += step
        core = core.T
    return core


def _outline(draw: ImageDraw.ImageDraw, box: np.ndarray, colour: Colour, line: int, dashed: bool) -> None:
    """The frame of a box, ``line`` pixels wide, inside it."""
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    if not dashed:
        # A dark rim keeps the frame visible on an object of its own colour.
        draw.rectangle([x1 - 1, y1 - 1, x2 + 1, y2 + 1], outline=tuple(c // 3 for c in colour), width=1)
        draw.rectangle([x1, y1, x2, y2], outline=colour, width=line)
        return
    dash = 4 * line
    for x in range(x1, x2 + 1, 2 * dash):
        for y in (y1, max(y1, y2 - line + 1)):
            draw.rectangle([x, y, min(x + dash, x2), y + line - 1], fill=colour)
    for y in range(y1, y2 + 1, 2 * dash):
        for x in (x1, max(x1, x2 - line + 1)):
            draw.rectangle([x, y, x + line - 1, min(y + dash, y2)], fill=colour)


def _fitted(name: str, score: str, letters: Lettering, width: int) -> str:
    """The text of a label. A name wider than the picture is shortened, so that the score stays visible."""
    if _chip_width(name + score, letters) <= width:
        return name + score

    def width_of(count: int) -> float:
        return _chip_width(f'{name[:count]}...{score}', letters)

    count = bisect.bisect_right(range(len(name) + 1), float(width), key=width_of) - 1
    return f'{name[:count].rstrip()}...{score}' if count > 0 else name + score


def _place_chip(box: np.ndarray, text: str, letters: Lettering, size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """The position of a label, xyxy: the first one that hides no other label, or else above the box."""
    width, height = _chip_width(text, letters), sum(letters.metrics(text))
    x1, y1, x2, y2 = (float(v) for v in box)
    corners = [(x1, y1 - height), (x1, y1), (x2 - width, y1 - height), (x2 - width, y1), (x1, y2), (x1, y2 - height)]
    places = []
    for x, y in corners:
        x, y = min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))
        places.append((x, y, x + width, y + height))
    return next((p for p in places if not any(_overlap(p, other) for other in taken)), places[0])


def _chip_width(text: str, letters: Lettering) -> float:
    """Pixels of a label: its text, and some space left and right of it."""
    return letters.width(text) + max(6, round(0.6 * letters.size))


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _chip(draw: ImageDraw.ImageDraw, place: Box, text: str, letters: Lettering, colour: Colour) -> None:
    """A filled label with black or white text, whichever contrasts more."""
    x1, y1, x2, y2 = place
    draw.rounded_rectangle([x1, y1, x2 - 1, y2 - 1], radius=(y2 - y1) / 6, fill=colour)
    red, green, blue = colour
    ink = (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
    letters.write(draw, ((x1 + x2) / 2, (y1 + y2) / 2), text, ink)


def draw_side_by_side(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Two pictures (H, W, 3) uint8 RGB of one image with titles. The second is resized to the height of the first."""
    first, second = Image.fromarray(truth), Image.fromarray(prediction)
    size = (max(1, round(second.width * first.height / second.height)), first.height)
    if second.size != size:
        second = second.resize(size, Image.Resampling.BICUBIC)
    text_size = max(14, round(max(first.size) / 40))
    font, gap, head = ImageFont.load_default(text_size), max(4, text_size // 3), 2 * text_size
    sheet = Image.new('RGB', (first.width + gap + second.width, first.height + head), PAPER)
    draw = ImageDraw.Draw(sheet)
    for left, picture, title in ((0, first, 'ground truth'), (first.width + gap, second, 'detections')):
        sheet.paste(picture, (left, head))
        draw.text((left + picture.width / 2, head / 2), title, fill=INK, font=font, anchor='mm')
    return np.asarray(sheet)


def nearest(new: int, old: int) -> np.ndarray:
    """(new,) int64: the pixels of a side of ``old`` pixels that are nearest to those of a side of ``new`` pixels."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def shrunk(image: np.ndarray, side: float) -> tuple[np.ndarray, float]:
    """A picture (H, W, 3) uint8 RGB whose longer side is at most ``side``, and the factor of shrinking."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image, 1.0
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)), scale


def grid(images: Sequence[np.ndarray], *, columns: int | None = None, cell: tuple[int, int] = (360, 480)) -> np.ndarray:
    """A contact sheet of pictures (H_i, W_i, 3) uint8 RGB, each centred and as large as its cell allows.

    Args:
        images: at least one.
        columns: cells in a row; None makes about as many columns as rows.
        cell: (height, width) in pixels.

    Raises:
        ValueError: there is no image.
    """
    if not images:
        raise ValueError('a contact sheet needs at least one image')
    height, width = cell
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    gap = max(4, width // 60)
    sheet = Image.new('RGB', (columns * (width + gap) + gap, rows * (height + gap) + gap), PAPER)
    for number, image in enumerate(images):
        scale = min(height / image.shape[0], width / image.shape[1])
        size = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
        left = gap + number % columns * (width + gap) + (width - size[0]) // 2
        top = gap + number // columns * (height + gap) + (height - size[1]) // 2
        sheet.paste(picture, (left, top))
    return np.asarray(sheet)
