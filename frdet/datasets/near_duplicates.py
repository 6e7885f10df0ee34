"""Finding pictures that look alike: a picture that was saved again or made smaller, or the next frame of a video.

A code is a perceptual hash of 256 bits: the lowest 16 x 16 frequencies of the grey picture of 64 x 64 pixels, each
compared with their median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). Two
pictures are near-duplicates if at most ``NEAR`` bits differ. The ``phash`` of the package ImageHash has the same
frequencies and finds as many. It is not used, because it needs SciPy, which takes 140 MB.

Measured on 159 photographs of COCO: two of them differed in 94 bits or more. JPEG of quality 40 changed at most 8 bits,
half the size 24, a change of brightness by 15% 18, of contrast by 20% 10, another file format 22, and all of them were
found. 98% were found after a hundredth of each side was cut off, and 3% after a twentieth of one side. Mirrored ones
are not found.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from frdet.datasets.transforms.loading import MAX_PIXELS, decode_turned, eight_bits, open_image
from frdet.files import cache_dir, write_file
from frdet.progress import track

NEAR = 32  # bits
SIDE, KEPT = 64, 16  # pixels of the grey picture; frequencies of each axis
BITS = KEPT**2
VERSION = 2  # of the codes: those of another version are not read from the cache
PLAIN = 2.0  # a picture whose grey levels deviate less has nothing that could be compared
BLOCK = 2048  # codes that are compared at once with as many others


class Codes(NamedTuple):
    """Codes of N pictures: ``bits`` (N, 32) uint8 packed, and ``known`` (N,) bool, false where a picture has none."""

    bits: np.ndarray
    known: np.ndarray


def code_of(path: str) -> bytes | None:
    """The code of the picture at ``path``, turned by its EXIF orientation; None if it is missing, broken or plain."""
    try:
        with open_image(path) as file:
            file.draft('L', (SIDE, SIDE))  # a JPEG is decoded at an eighth of its size, if that is enough
            if file.width * file.height > MAX_PIXELS:
                return None
            image, _ = decode_turned(file)
            small = eight_bits(image).convert('L').resize((SIDE, SIDE), Image.Resampling.BOX)
            grey = np.asarray(small, dtype=np.float32)
    except Exception:  # a decoder that reads garbage may raise anything
        return None
    if grey.std() < PLAIN:
        return None
    import cv2  # it takes a fifth of a second, and few users need it

    frequencies = cv2.dct(grey)[:KEPT, :KEPT]
    return np.packbits(frequencies > np.median(frequencies)).tobytes()


def codes_of(folder: str | Path, names: Sequence[str]) -> Codes:
    """The codes of the pictures ``names`` below ``folder``. A cache on disk keeps them until a file changes."""
    folder = os.path.abspath(folder)
    cache = _cache_file(folder)
    known = _read_cache(cache)
    states = [_state(os.path.join(folder, name)) for name in names]
    new = [
        (name, state)
        for name, state in dict(zip(names, states, strict=True)).items()
        if state is not None and known.get(name, [])[:2] != state
    ]
    if new:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow decodes outside the interpreter's lock
            codes = pool.map(code_of, [os.path.join(folder, name) for name, _ in new])
            for (name, state), code in zip(new, track(codes, 'Comparing images', total=len(new)), strict=True):
                known[name] = [*state, code.hex() if code else None]
        _write_cache(cache, known)
    found = [known[name][2] if state is not None else None for name, state in zip(names, states, strict=True)]
    empty = bytes(BITS // 8).hex()
    bits = np.frombuffer(bytes.fromhex(''.join(code or empty for code in found)), dtype=np.uint8)
    return Codes(bits.reshape(-1, BITS // 8), np.array([code is not None for code in found], dtype=bool))


def near_pairs(codes: Codes, limit: int = NEAR) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """All pairs of pictures whose codes differ in at most ``limit`` bits, in several blocks.

    Yields:
        The positions of the first pictures, those of the second pictures, which are greater, and the numbers of bits.
    """
    places = np.flatnonzero(codes.known)
    # The product of two codes of -1 and 1 is the number of equal bits less the number of different bits.
    signs = np.unpackbits(codes.bits[places], axis=1).astype(np.float32) * 2 - 1
    for start in range(0, len(places), BLOCK):
        for other in range(start, len(places), BLOCK):
            product = signs[start : start + BLOCK] @ signs[other : other + BLOCK].T
            first, second = np.nonzero(product >= BITS - 2 * limit)
            bits = (BITS - product[first, second]) / 2
            first, second = places[start + first], places[other + second]
            is_pair = first < second
            yield first[is_pair], second[is_pair], bits[is_pair].astype(np.int64)


def group(codes: Codes, limit: int = NEAR) -> np.ndarray:
    """(N,) for every picture the position of the first picture that it is connected with by near-duplicates."""
    return _group(codes.bits.tobytes(), codes.known.tobytes(), limit).copy()


def group_images(folder: str | Path, names: Sequence[str]) -> tuple[np.ndarray, str]:
    """Images that a division should keep together: ``group`` for the pictures ``names``, and a description.

    Pictures of a fixed camera may all be alike. If more than half of the images would be one group, only pictures with
    equal codes are kept together, and if these are more than half, too, none are.
    """
    codes = codes_of(folder, names)
    for limit in (NEAR, 0):
        groups = group(codes, limit)
        sizes = np.bincount(groups)
        if sizes.max(initial=0) <= max(len(names) / 2, 1):
            several = sizes[sizes > 1]
            said = f'near-duplicates are kept together: {several.sum()} images, in groups of up to {sizes.max()}'
            alike = 'more than half of the images are alike, so only equal ones are kept together'
            return groups, (alike if not limit else said if len(several) else '')
    return np.arange(len(names)), 'more than half of the images are equal, so near-duplicates are not kept together'


@lru_cache(maxsize=2)  # training and validation ask for the same images
def _group(bits: bytes, known: bytes, limit: int) -> np.ndarray:
    mask = np.frombuffer(known, dtype=bool)
    codes = Codes(np.frombuffer(bits, dtype=np.uint8).reshape(len(mask), -1), mask)
    root = np.arange(len(mask))
    for first, second, _ in near_pairs(codes, limit):
        while True:
            low, high = np.minimum(root[first], root[second]), np.maximum(root[first], root[second])
            if not (differ := low != high).any():
                break
            np.minimum.at(root, high[differ], low[differ])
            while (root != root[root]).any():
                root = root[root]
    return root


def _state(path: str) -> list[int] | None:
    """Size and time of a file, which change with its content; None if it is missing."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns]


def _cache_file(folder: str) -> Path:
    return cache_dir() / f'near_duplicates_{VERSION}_{blake2b(os.fsencode(folder), digest_size=8).hexdigest()}.json'


def _read_cache(path: Path) -> dict[str, list]:
    """File name -> size, time, and code as text or None. A missing or damaged cache is empty."""
    try:
        content = json.loads(path.read_bytes())
        return {name: [int(size), int(time), code] for name, (size, time, code) in content.items() if _is_code(code)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _is_code(code: object) -> bool:
    return code is None or (isinstance(code, str) and len(bytes.fromhex(code)) == BITS // 8)


def _write_cache(path: Path, content: dict[str, list]) -> None:
    """Without a place to write, the codes are computed again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(content).encode())
    except OSError:
        pass
