"""Which names a message proposes, and which ones are refused as misspellings."""

import pytest

from frdet.errors import did_you_mean, near_names


@pytest.mark.parametrize(
    ('name', 'known', 'is_near', 'is_sure'),
    [
        # Twice the number of common letters in the same order, over the number of all letters.
        ('triangle', 'ring', False, False),  # 2 * 4 / 12
        ('cat', 'car', False, False),  # 2 * 2 / 6
        ('star', 'square', False, False),  # 2 * 3 / 10
        ('cell', 'bell', True, False),  # 2 * 3 / 8
        ('house', 'mouse', True, False),  # 2 * 4 / 10
        ('cats', 'cat', True, True),  # 2 * 3 / 7
        ('cricle', 'circle', True, True),  # 2 * 5 / 12
        ('Person', 'person', True, True),
    ],
)
def test_what_is_near(name, known, is_near, is_sure):
    others = ['zzz', known, 'qqq']
    assert near_names(name, others) == [known] * is_near
    assert near_names(name, others, sure=True) == [known] * is_sure


def test_at_most_three_are_proposed_and_the_nearest_first():
    assert did_you_mean('boxes', ['box', 'boxed', 'boxes_', 'foxes', 'Boxes', 'x']) == (
        'did you mean Boxes or boxes_ or foxes?'  # 2 * 5 / 11, then 8 / 10; of equal ones the later letter comes first
    )
    assert did_you_mean('boxes', []) == ''
