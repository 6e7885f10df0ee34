from PIL import Image

from frdet.insight.trace.model import Around, Card
from frdet.insight.trace.pictures import crop


def test_a_crop(tmp_path):
    """A box of 20 x 10 at (100, 50) of 240 x 160: 32 pixels around it are x 68 to 153, y 18 to 93."""
    Image.new('RGB', (240, 160), 'seagreen').save(tmp_path / 'a.png')
    card = Card(
        '1',
        '1',
        str(tmp_path / 'a.png'),
        [Around('anchor', (90, 40, 130, 70), 'a'), Around('object', (0, 0, 60, 60), 'b')],
    )
    picture, marks = crop(card, (100, 50, 120, 60), 'bus')
    assert picture.shape == (75, 85, 3) and picture[0, 0].tolist() == [46, 139, 87]
    assert [(mark.tags['kind'], mark.xywh, mark.label) for mark in marks] == [
        ('anchor', [22, 22, 40, 30], ''), ('this object', [32, 32, 20, 10], 'bus')
    ]  # fmt: skip
    # A box as large as the image is shrunk to 360 pixels: by 360 / 600.
    Image.new('RGB', (600, 300)).save(tmp_path / 'a.png')
    picture, marks = crop(card, (0, 0, 600, 300), 'bus')
    assert picture.shape == (180, 360, 3) and marks[-1].xywh == [0, 0, 360, 180]
    assert crop(Card('1', '1', str(tmp_path / 'b.png'), []), (0, 0, 9, 9), 'bus') is None
    assert crop(card, (700, 400, 710, 410), 'bus')[0].size  # a box outside of the image
