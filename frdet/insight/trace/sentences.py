"""What the numbers of a trace mean, in words."""

import shlex
from typing import Any

from frdet.insight.trace.model import FOUND, Stage, Summary

#: Numbers of an object that its page shows, with their meaning; the others are part of a sentence there.
MEANINGS = {
    'network_size': "square root of the area, in the network's pixels",
    'crowding': 'largest IoU with another object',
    'anchor_iou': 'best IoU with an anchor',
    'anchor_rank': 'best rank of an anchor that fits, in its level',
    'anchor_score': 'score of that anchor',
    'decoded_iou': 'best IoU with a box decoded from the kept anchors',
    'proposal_iou': 'best IoU with a proposal',
    'own_score': 'best score of its class among the boxes that fit',
    'background_score': 'background score of that box',
    'other_score': 'best score of another class there',
    'refined_iou': 'best IoU with a refined box of its class',
    'detection_iou': 'IoU with the detection',
    'detection_score': 'score of the detection',
    'detection_rank': 'rank of the detection in its image',
}
MOST_LETTERS = 80  # of the value of a config key


def fate(stage: str) -> str:
    """What happened to an object."""
    return 'found' if stage == FOUND else f'lost at {stage}'


def settings(stage: Stage) -> list[tuple[str, str]]:
    """The config keys of a stage with their values as text; a long value is cut."""
    texts = {key: repr(value) for key, value in stage.keys.items()}
    return [(key, text if len(text) <= MOST_LETTERS else f'{text[:MOST_LETTERS]}…') for key, text in texts.items()]


def step_command(summary: Summary) -> str:
    """The command that shows a training step of an image whose id follows it."""
    weights = ['--checkpoint', summary.checkpoint] if summary.checkpoint else []
    words: list[Any] = ['python', 'tools/inspect_step.py', summary.config, *weights, '--split', summary.split]
    return f'{shlex.join(words)} --image '


def percent(count: int, of: int) -> str:
    """A share; '–' of nothing."""
    return f'{count / of:.1%}' if of else '–'
