"""Placing pictures next to each other."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER = (24, 26, 30)
INK = (235, 235, 235)


def draw_side_by_side(
    truth: np.ndarray, prediction: np.ndarray, *, titles: tuple[str, str] = ('ground truth', 'detections')
) -> np.ndarray:
    """Two pictures (H, W, 3) uint8 RGB of one image with titles. The second is resized to the height of the first."""
    height = truth.shape[0]
    width = max(1, round(prediction.shape[1] * height / prediction.shape[0]))
    second = Image.fromarray(prediction)
    if second.size != (width, height):
        second = second.resize((width, height), Image.Resampling.BICUBIC)
    text_size = max(14, round(max(truth.shape[:2]) / 40))
    font, gap, head = ImageFont.load_default(text_size), max(4, text_size // 3), 2 * text_size
    sheet = Image.new('RGB', (truth.shape[1] + gap + width, height + head), PAPER)
    draw = ImageDraw.Draw(sheet)
    for left, picture, title in ((0, Image.fromarray(truth), titles[0]), (truth.shape[1] + gap, second, titles[1])):
        sheet.paste(picture, (left, head))
        draw.text((left + picture.width / 2, head / 2), title, fill=INK, font=font, anchor='mm')
    return np.asarray(sheet)


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
