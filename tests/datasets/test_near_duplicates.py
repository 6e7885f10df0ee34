"""Pictures that look alike are found, and unlike ones are not; the cache on disk follows the files."""

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from frdet.datasets import near_duplicates
from frdet.datasets.near_duplicates import BITS, NEAR, Codes, code_of, codes_of, group, group_images, near_pairs
from tests.datasets.transforms.test_loading import claiming


def photo(seed, size=(160, 120)):
    """A picture with coarse and fine content, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [Image.fromarray(rng.integers(0, 255, (n, n, 3)).astype(np.uint8)).resize(size, 3) for n in (4, 9, 24)]
    return Image.blend(Image.blend(layers[0], layers[1], 0.5), layers[2], 0.3)


def bits_of(path):
    return np.unpackbits(np.frombuffer(code_of(str(path)), dtype=np.uint8))


VARIANTS = {
    'again.jpg': lambda one: one,
    'coarse.jpg': lambda one: one,  # saved with a quality of 40
    'half.jpg': lambda one: one.resize((80, 60)),
    'lossless.png': lambda one: one,
    'bright.jpg': lambda one: ImageEnhance.Brightness(one).enhance(1.15),
    'contrast.jpg': lambda one: ImageEnhance.Contrast(one).enhance(0.8),
    'grey.jpg': lambda one: one.convert('L'),
    'blurred.jpg': lambda one: one.filter(ImageFilter.GaussianBlur(1)),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('FRDET_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def folder(tmp_path):
    """Ten unlike pictures, and the variants of the first one."""
    for seed in range(10):
        photo(seed).save(tmp_path / f'{seed}.jpg')
    for name, change in VARIANTS.items():
        change(photo(0)).save(tmp_path / name, quality=40 if name == 'coarse.jpg' else 90)
    return tmp_path


def test_changed_copies_are_near_and_other_pictures_are_not(folder):
    first = bits_of(folder / '0.jpg')
    for name in VARIANTS:
        assert (bits_of(folder / name) != first).sum() <= NEAR, name
    for seed in range(1, 10):
        assert (bits_of(folder / f'{seed}.jpg') != first).sum() > 2 * NEAR


def test_photographs_are_unlike(coco_root):
    """All pairs of the photographs of COCO that are there; drawn images are not compared."""
    names = sorted(path.name for path in coco_root.val_dir.iterdir())[:40]
    pairs = [pair for block in near_pairs(codes_of(coco_root.val_dir, names)) for pair in zip(*block, strict=True)]
    assert not (coco_root.is_real and pairs)


def test_the_code_by_its_formula(tmp_path):
    """Each frequency of the orthonormal cosine transform is a sum over all pixels. It is compared with their median."""
    photo(3, (64, 64)).convert('L').save(tmp_path / 'a.png')
    grey = np.asarray(Image.open(tmp_path / 'a.png'), dtype=np.float64)
    waves = [np.cos(k * np.pi * (np.arange(64) + 0.5) / 64) * np.sqrt((1 if k == 0 else 2) / 64) for k in range(16)]
    low = [(grey * down[:, None] * across).sum() for down in waves for across in waves]
    assert bits_of(tmp_path / 'a.png').tolist() == [int(value > np.median(low)) for value in low]


def test_pictures_of_other_kinds(tmp_path):
    """Turned by EXIF, of 16 bits, transparent, with a palette; one that is larger than the limit is not read."""
    grey, exif = photo(3).convert('L'), Image.Exif()
    exif[0x0112] = 6
    grey.save(tmp_path / 'a.png')
    grey.transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'turned.jpg', exif=exif)
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / 'deep.png')
    grey.convert('RGBA').save(tmp_path / 'clear.png')
    grey.convert('P').save(tmp_path / 'palette.png')
    first = bits_of(tmp_path / 'a.png')
    for name in ('turned.jpg', 'deep.png', 'clear.png', 'palette.png'):
        assert (bits_of(tmp_path / name) != first).sum() <= NEAR, name
    (tmp_path / 'bomb.png').write_bytes(claiming((100_000, 100_000)))
    assert code_of(str(tmp_path / 'bomb.png')) is None


@pytest.mark.parametrize('name', ['missing.jpg', 'broken.jpg', 'plain.png', 'nearly.jpg'])
def test_pictures_that_cannot_be_compared(tmp_path, name):
    """They are near-duplicates of nothing, not even of themselves."""
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    Image.new('RGB', (50, 40), 'red').save(tmp_path / 'plain.png')
    noise = 128 + np.random.default_rng(0).integers(0, 2, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / 'nearly.jpg')
    codes = codes_of(tmp_path, [name, name])
    assert not codes.known.any() and group(codes).tolist() == [0, 1]


def by_loop(bits, limit):
    """Pairs one by one, and the components of their graph by searching them."""
    pairs = {(i, j): d for i in range(len(bits)) for j in range(i) if (d := int((bits[i] != bits[j]).sum())) <= limit}
    root = list(range(len(bits)))
    for i, j in sorted(pairs):
        root = [root[j] if r == root[i] else r for r in root]
    return pairs, root


def test_pairs_and_groups_against_a_loop(monkeypatch):
    """Chains of codes, each some bits from the one before, in blocks smaller than the chains."""
    monkeypatch.setattr(near_duplicates, 'BLOCK', 5)
    rng = np.random.default_rng(1)
    bits = [rng.integers(0, 2, BITS)]
    for _ in range(39):
        flipped = rng.permutation(BITS)[: rng.integers(1, 60)]
        bits.append(bits[-1].copy())
        bits[-1][flipped] ^= 1
    bits = [bits[k] for k in rng.permutation(40)]
    codes = Codes(np.packbits(bits, axis=1), np.arange(40) != 7)
    pairs, root = by_loop([b for k, b in enumerate(bits) if k != 7], NEAR)
    found = {
        (int(j) - (j > 7), int(i) - (i > 7)): int(d)
        for block in near_pairs(codes)
        for i, j, d in zip(*block, strict=True)
    }
    assert found == pairs and 10 < len(pairs) < 500
    groups = np.delete(group(codes), 7)
    assert all((groups[i] == groups[j]) == (root[i] == root[j]) for i in range(39) for j in range(39))


def test_a_chain_that_is_joined_last(monkeypatch):
    """Codes 0, 4, 2 and 1 are 20 bits apart each; one at a time, the pairs 0-4 and 1-2 are found before 2-4."""
    monkeypatch.setattr(near_duplicates, 'BLOCK', 1)
    bits = np.zeros((5, BITS), dtype=np.uint8)
    for flipped, k in enumerate((0, 4, 2, 1)):
        bits[k, : 20 * flipped] = 1
    bits[3, 100:] = 1
    assert group(Codes(np.packbits(bits, axis=1), np.ones(5, dtype=bool))).tolist() == [0, 0, 0, 3, 0]


def test_what_a_division_keeps_together(folder):
    names = [*(f'{seed}.jpg' for seed in range(10)), *VARIANTS]
    groups, said = group_images(folder, names)
    assert groups.tolist() == [*range(10), *[0] * len(VARIANTS)]
    assert said == 'near-duplicates are kept together: 9 images, in groups of up to 9'
    different = list({code_of(str(folder / name)): name for name in VARIANTS}.values())  # one for each code
    alike, said = group_images(folder, ['1.jpg', *different])
    assert alike.tolist() == list(range(len(different) + 1)) and len(different) > 2
    assert said.startswith('more than half of the images are alike')
    for name in ('c', 'd', 'e', 'f'):
        shutil.copy(folder / '3.jpg', folder / name)
    equal, said = group_images(folder, ['1.jpg', 'c', 'd', 'e', 'f'])
    assert equal.tolist() == [0, 1, 2, 3, 4] and said.startswith('more than half of the images are equal')


def test_the_cache(folder, cache, monkeypatch):
    """A picture is read once until it changes; a damaged cache is as good as none."""
    names = ['1.jpg', '2.jpg', 'missing.jpg']
    read = []
    monkeypatch.setattr(near_duplicates, 'code_of', lambda path: read.append(os.path.basename(path)) or code_of(path))
    first = codes_of(folder, names)
    again = codes_of(folder, names)
    assert sorted(read) == ['1.jpg', '2.jpg'] and np.array_equal(first.bits, again.bits)
    photo(5).save(folder / '2.jpg', quality=95)
    changed = codes_of(folder, names)
    assert read[2:] == ['2.jpg'] and np.array_equal(changed.bits[0], first.bits[0])
    assert changed.bits[1].tobytes() == code_of(str(folder / '2.jpg'))
    (file,) = cache.iterdir()
    for damage in (b'', b'{"1.jpg": 3}', b'[]', json.dumps({'1.jpg': [1, 2, 'xy']}).encode()):
        file.write_bytes(damage)
        assert np.array_equal(codes_of(folder, names).bits, changed.bits)
    monkeypatch.setattr(near_duplicates, 'VERSION', 'next')
    codes_of(folder, names)
    assert read[-2:] == ['1.jpg', '2.jpg'] and len(list(cache.iterdir())) == 2
    os.environ['FRDET_CACHE'] = str(folder / '1.jpg')  # no folder
    assert np.array_equal(codes_of(folder, names).bits, changed.bits)


def test_a_cut_file_is_not_compared(tmp_path):
    stream = io.BytesIO()
    photo(1).save(stream, 'jpeg')
    (tmp_path / 'cut.jpg').write_bytes(stream.getvalue()[:900])
    assert code_of(str(tmp_path / 'cut.jpg')) is None
