"""Masks as outlines that a page draws on a picture, so that they are hidden with their boxes."""

import numpy as np

from frdet.visualization.drawing import nearest

TOLERANCE = 0.7  # pixels that an outline may lie beside the edge of its mask, which makes it five times as short


def outline_of(mask: np.ndarray, size: tuple[int, ...]) -> str:
    """The outlines of a mask and of its holes as SVG path data; empty for an empty mask.

    Args:
        mask: (h, w), not 0 inside the object; it covers the whole picture, whatever its resolution.
        size: (H, W, ...) of the picture, whose pixels the outline has.
    """
    import cv2  # the import takes a fifth of a second, and few pages have masks

    rows, columns = (nearest(new, old) for new, old in zip(size, mask.shape, strict=False))
    inside = np.ascontiguousarray(mask[rows][:, columns] != 0, dtype=np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)  # through the centres of pixels
    lines = (cv2.approxPolyDP(contour, TOLERANCE, True)[:, 0].tolist() for contour in contours)
    return ''.join(f'M{"L".join(f"{x}.5 {y}.5" for x, y in line)}Z' for line in lines)
