"""Finding all mistakes in annotation files and images, where reading stops at the first one: kinds, and their table."""

from typing import NamedTuple

from terminaltables import AsciiTable

from frdet.moved import moved_names

__getattr__ = moved_names(__name__, dict.fromkeys(('check_data', 'DataReport'), 'frdet.apis.checking'))

EXAMPLES = 3

#: Kind of finding -> its consequence. An error stops training or evaluation, or makes it wrong.
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
    'box of negative size': 'its object is learnt as background',
    'box outside its image': 'its object is learnt as background',
    'most boxes leave their images': 'wrong boxes: are they x1 y1 x2 y2, not x y width height?',
    'missing image': 'skipped in training, stops evaluation',
    'undecodable image': 'skipped in training, stops evaluation',
    'image of another size': 'stops',
    'boxes of 0 to 1': 'wrong boxes: they are read as pixels; multiply them by width and height',
    'data set refused': 'stops',
    'classes refused': 'stops',
    'evaluation refused': 'stops',
    'nothing to evaluate': 'every metric value is -1, and no checkpoint can be chosen',
}
#: Kind of finding -> how frdet deals with it.
NOTES = {
    'box without area': 'left out by FilterBoxes',
    'box leaves its image': 'cut to the image',
    'category left out': 'it is no class',
    'file name written otherwise': 'the file that is there is read',
    'grey image': 'read as colour',
    'palette image': 'read as colour',
    'CMYK image': 'read as colour',
    'image with transparency': 'its colours are read',
    '16-bit image': 'the upper 8 bits are read',
    'image turned by EXIF': 'turned',
    'repeated annotation id': 'ids of annotations are not read',
    'area that is not positive': 'the area of the box counts in AP by size',
    'areas unlike their boxes': 'AP by size follows the areas: are they square pixels?',
    'ignored box': 'neither trained on nor evaluated',
    'repeated box': 'one object counts as several',
    'repeated image': 'drawn and counted as often as it is listed',
    'image that is hardly to be seen': 'a side is under 8 pixels, or under a fortieth of the other',
    'class without a box': 'not learnt; not measured',
    'image left out of training': 'by filter_cfg',
    'image in two splits': 'metric values are better than for new images',
    'said by the evaluator': 'a reader of the metric values should know it',
}


class Finding(NamedTuple):
    """How often a kind was found, and the first examples."""

    times: int
    examples: tuple[str, ...]


class Findings(dict[str, Finding]):
    """Kind of finding -> ``Finding``."""

    def add(self, kind: str, example: str) -> None:
        """Count one more ``kind``, which must be in ``ERRORS`` or ``NOTES``."""
        assert kind in ERRORS or kind in NOTES, kind
        times, examples = self.get(kind, Finding(0, ()))
        self[kind] = Finding(times + 1, examples + (example,) if times < EXAMPLES else examples)

    @property
    def has_errors(self) -> bool:
        """Whether a finding stops a run or makes it wrong."""
        return any(kind in ERRORS for kind in self)

    def table(self) -> str:
        """One row for each kind, errors first."""
        rows = [['', 'found', 'count', 'consequence', 'first']]
        for severity, kinds in (('error', ERRORS), ('note', NOTES)):
            for kind, consequence in kinds.items():
                if kind in self:
                    times, examples = self[kind]
                    rows.append([severity, kind, str(times), consequence, '\n'.join(examples)])
        return AsciiTable(rows).table
