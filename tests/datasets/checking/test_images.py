import pytest

from frdet.datasets.checking import Findings
from frdet.datasets.checking.images import ImageFile, find_images, inspect_image
from tests.datasets.transforms.test_loading import claiming, png16
from tests.datasets.transforms.test_orientation import oriented, png_with_late_exif, tiff


@pytest.mark.parametrize(
    ('content', 'size', 'kinds'),
    [
        (png16(2, [[1, 2, 3]]), (1, 1), ['16-bit image']),  # of colour
        (png16(0, [[1]]), (1, 1), ['grey image', '16-bit image']),
        (png_with_late_exif(oriented(6)), (32, 48), ['image turned by EXIF']),
        (png_with_late_exif(oriented(6)), (48, 32), ['image turned by EXIF', 'image of another size']),
        (tiff([(0x0112, 3, 1, b'\6\0')]), (32, 48), ['grey image', 'image turned by EXIF']),
        (png16(2, [[1, 2, 3]]), (9, 9), ['16-bit image', 'image of another size']),
        (claiming((20_000, 20_000)), (9, 9), ['grey image', '16-bit image', 'image of another size']),
    ],
)
def test_kinds_of_one_image(tmp_path, content, size, kinds):
    """``size`` is (width, height) of the record. Of an unexpected size pixels are not decoded."""
    (tmp_path / 'a').write_bytes(content)
    assert [kind for kind, _ in inspect_image(ImageFile(str(tmp_path / 'a'), 'a', size))] == kinds


@pytest.mark.parametrize(
    ('file_name', 'near'),
    [(r'sub\a.png', 'sub/a.png'), ('sub/A.PNG', 'sub/a.png'), ('images/b.png', 'b.png'), ('c.png', '')],
)
def test_a_missing_image_that_is_near(tmp_path, file_name, near):
    for name in ('images/sub/a.png', 'images/b.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    findings = Findings()
    found = find_images([dict(id=7, file_name=file_name, width=1, height=1)] * 5, tmp_path / 'images', findings)
    if near:
        assert findings == {'file name written otherwise': (5, (f'{file_name!r} (id 7): {near}',) * 3)}
        assert [image.path for image in found] == [str(tmp_path / 'images' / near)] * 5
    else:
        assert findings == {'missing image': (5, (f'{file_name!r} (id 7)',) * 3)} and not found


def test_two_names_of_one_file(tmp_path):
    """None of them is certain, but the report tells what is near."""
    (tmp_path / 'a.png').touch()
    findings = Findings()
    records = [dict(id=k, file_name=f'{k}/a.png', width=1, height=1) for k in (1, 2)]
    assert find_images(records, tmp_path, findings) == []
    assert findings == {'missing image': (2, ("'1/a.png' (id 1): a.png is there", "'2/a.png' (id 2): a.png is there"))}
