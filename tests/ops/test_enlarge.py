"""Enlarging against Pillow, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from frdet import ops
from frdet.ops import fallback, loading


def pillow(image: np.ndarray, height: int, width: int) -> torch.Tensor:
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def test_by_hand() -> None:
    """Two pixels, 0 and 100, on four: the centres lie at -0.25, 0.25, 0.75 and 1.25 of the distance between them."""
    image = torch.tensor([[[0, 0, 8], [100, 0, 8]]], dtype=torch.uint8)
    assert ops.enlarge(image, 1, 4).tolist() == [[[0, 25, 75, 100]], [[0, 0, 0, 0]], [[8, 8, 8, 8]]]


@pytest.mark.parametrize('seed', range(40))
def test_random_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (height, width), more = rng.integers(1, 70, 2), rng.integers(0, (2, 100, 900)[seed % 3], 2)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    size = (int(height + more[0]), int(width + more[1]))
    for pixels in (image, np.full_like(image, 255)):
        result = ops.enlarge(torch.from_numpy(pixels), *size)
        assert result.is_contiguous()
        assert result.equal(pillow(pixels, *size))


def test_strided_input() -> None:
    image = torch.randint(0, 256, (3, 9, 14), dtype=torch.uint8).permute(1, 2, 0)[:, ::2]
    assert ops.enlarge(image, 20, 30).equal(pillow(image.numpy(), 20, 30))


def test_fallback() -> None:
    image = torch.randint(0, 256, (9, 14, 3), dtype=torch.uint8)
    result = fallback.enlarge(image, 20, 30)
    assert result.is_contiguous()
    assert result.equal(pillow(image.numpy(), 20, 30))


def test_real_images(coco_root) -> None:
    for path in sorted(coco_root.val_dir.glob('*.jpg'))[:3]:
        image = np.array(Image.open(path).convert('RGB'))
        height, width = image.shape[0] + 321, image.shape[1] + 427
        assert ops.enlarge(torch.from_numpy(image), height, width).equal(pillow(image, height, width))


@pytest.mark.skipif('cpu' not in loading.status().loaded, reason='words of the extension')
@pytest.mark.parametrize(
    ('image', 'size', 'words'),
    [
        (torch.zeros(4, 5, 3), (8, 8), 'is float32, expected uint8'),
        (torch.zeros(3, 4, 5, dtype=torch.uint8), (8, 8), r'shape \(3, 4, 5\), expected \(H, W, 3\)'),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), (8, 4), r'from \(4, 5, 3\) to \(8, 4\), expected sides that do not'),
        (torch.zeros(0, 5, 3, dtype=torch.uint8), (8, 8), r'from \(0, 5, 3\)'),
    ],
)
def test_mistakes(image: torch.Tensor, size: tuple[int, int], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        ops.enlarge(image, *size)
