"""Finding all mistakes in annotations and images, where reading stops at the first one: kinds, and their table."""

from collections.abc import Sequence
from typing import NamedTuple

from terminaltables import AsciiTable

from frdet.moved import moved_names

__getattr__ = moved_names(__name__, dict.fromkeys(('check_data', 'DataReport'), 'frdet.apis.checking'))

EXAMPLES = 3  # of each kind in the table
PICTURES = 6  # examples of each kind that can be drawn

#: Kind of finding -> its consequence, the most harmful first. An error stops training or evaluation, or makes it wrong.
ERRORS = {
    'unreadable annotation file': 'stops',
    'wrong image record': 'stops',
    'wrong category record': 'stops',
    'wrong annotation': 'stops',
    'repeated image id': 'stops',
    'repeated category': 'stops',
    'annotation of no image': 'stops',
    'annotation of no category': 'stops',
    'box not finite': 'stops',
    'object without a mask': 'stops, with with_masks=True',
    'data set refused': 'stops',
    'classes refused': 'stops',
    'evaluation refused': 'stops',
    'image of another size': 'stops',
    'missing image': 'skipped in training, stops evaluation',
    'undecodable image': 'skipped in training, stops evaluation',
    'boxes of 0 to 1': 'wrong boxes: they are read as pixels; multiply them by width and height',
    'most boxes leave their images': 'wrong boxes: are they x1 y1 x2 y2, not x y width height?',
    'box of negative size': 'its object is learnt as background',
    'box outside its image': 'its object is learnt as background',
    'nothing to evaluate': 'there is no metric value, or each is -1, and no checkpoint can be chosen',
}
#: Kind of finding -> its consequence, or how frdet deals with it; the most harmful first.
NOTES = {
    'image in two splits': 'metric values are better than for new images',
    'near-duplicate in two splits': 'metric values are better than for new images; split keeps them together',
    'class without a box': 'not learnt; not measured; metainfo=dict(classes=[...]) without it leaves it out',
    'class with few boxes': 'under 10 in training: hardly learnt',
    'two classes on one box': 'IoU over 0.9: the detector learns both, and one is counted as wrong',
    'repeated box': 'IoU over 0.95 in one class: one object counts as several',
    'object too small for the network': 'after resizing, a side is under a cell of the finest level: hardly learnt',
    'box of unusual size': 'a slip of the mouse? Its area is far from those of its class',
    'box of unusual shape': 'a slip of the mouse? One side is over 15 times the other',
    'repeated image': 'drawn and counted as often as it is listed',
    'near-duplicate image': 'looks like another one in its split: it adds little, and counts as much',
    'image left out of training': 'by filter_cfg',
    'said by the evaluator': 'a reader of the metric values should know it',
    'areas unlike their boxes': 'AP by size follows the areas: are they square pixels?',
    'area that is not positive': 'the area of the box counts in AP by size',
    'mask without area': 'nothing to learn for a mask head; no detected mask finds it',
    'box unlike its mask': 'a side is over 3 pixels, and over a tenth of the box, away: which of them is right?',
    'box without area': 'left out by FilterBoxes',
    'box leaves its image': 'cut to the image',
    'image that is hardly to be seen': 'a side is under 8 pixels, or under a fortieth of the other',
    'category left out': 'it is no class',
    'file name written otherwise': 'the one file that it means is read',
    'image turned by EXIF': 'turned',
    'ignored box': 'neither trained on nor evaluated',
    'repeated annotation id': 'ids of annotations are not read',
    'grey image': 'read as colour',
    'palette image': 'read as colour',
    'CMYK image': 'read as colour',
    'image with transparency': 'its colours are read',
    '16-bit image': 'the upper 8 bits are read',
}


class Finding(NamedTuple):
    """How often a kind was found, and the first examples."""

    times: int
    examples: tuple[str, ...]


class Place(NamedTuple):
    """Where a finding can be seen: the path of an image, and boxes (n, 4) xyxy in its pixels with their labels."""

    path: str
    boxes: Sequence[Sequence[float]] = ()
    labels: Sequence[str] = ()


class Findings(dict[str, Finding]):
    """Kind of finding -> ``Finding``.

    Attributes:
        pictures: for each kind the first examples that can be drawn, each of one picture or of two that are compared.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pictures: dict[str, list[tuple[Place, ...]]] = {}

    def add(self, kind: str, example: str, *places: Place) -> None:
        """Count one more ``kind``, which must be in ``ERRORS`` or ``NOTES``."""
        assert kind in ERRORS or kind in NOTES, kind
        times, examples = self.get(kind, Finding(0, ()))
        self[kind] = Finding(times + 1, examples + (example,) if times < EXAMPLES else examples)
        if places and len(drawn := self.pictures.setdefault(kind, [])) < PICTURES:
            drawn.append(places)

    def add_without_examples(self, kind: str, times: int) -> None:
        """Count ``times`` more of a kind that has examples already."""
        self[kind] = self[kind]._replace(times=self[kind].times + times)

    @property
    def has_errors(self) -> bool:
        """Whether a finding stops a run or makes it wrong."""
        return any(kind in ERRORS for kind in self)

    def ranked(self) -> list[tuple[str, str, str, Finding]]:
        """Severity, kind, consequence and finding, the most harmful first."""
        return [
            (severity, kind, consequence, self[kind])
            for severity, kinds in (('error', ERRORS), ('note', NOTES))
            for kind, consequence in kinds.items()
            if kind in self
        ]

    def table(self) -> str:
        """One row for each kind, the most harmful first."""
        rows = [['', 'found', 'count', 'consequence', 'first']]
        for severity, kind, consequence, (times, examples) in self.ranked():
            rows.append([severity, kind, str(times), consequence, '\n'.join(examples)])
        return AsciiTable(rows).table
