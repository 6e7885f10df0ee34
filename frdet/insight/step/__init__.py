"""Makes one training step of a config and shows it on an HTML page.

``preparing`` builds the data, model and optimiser, ``recording`` makes the step and records its values, ``findings``
looks for problems, and the ``page_`` modules draw the page. Any BaseModel of MMEngine is accepted. Sections about boxes
appear if the model has parts with such boxes.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.logging import MMLogger

from frdet.insight.page import Page
from frdet.insight.step.findings import find_warnings
from frdet.insight.step.page_boxes import add_anchors, add_data, add_proposals, add_rois
from frdet.insight.step.page_layers import add_activations, add_losses, add_parts, add_updates
from frdet.insight.step.preparing import prepare
from frdet.insight.step.record import ANCHORS, DATA, PROPOSALS, ROIS, Record
from frdet.insight.step.recording import record_step
from frdet.progress import Bar

__all__ = ['inspect_step']

_SECTIONS = {
    'The parts': add_parts,
    DATA: add_data,
    ANCHORS: add_anchors,
    PROPOSALS: add_proposals,
    ROIS: add_rois,
    'Losses': add_losses,
    'Activations': add_activations,
    'Updates': add_updates,
}


def inspect_step(
    cfg: Config, *, checkpoint: str | None = None, images: Sequence[str] = (), seed: int = 0
) -> tuple[Page, Record]:
    """Make one training step on images of the config's training data. No file is written.

    Args:
        cfg: a whole config.
        checkpoint: path or address of the weights; without it, ``load_from`` or the weights that training starts from.
        images: image ids; without them, the first image is taken.
        seed: seed of the random transforms, of random weights and of the samplers.

    Returns:
        The page, and the record of the step that it shows.

    Raises:
        ConfigError: the config is wrong, or its model is no BaseModel of MMEngine.
        DataError: the data are missing or empty, or lack an image of ``images``.
        CheckpointError: the checkpoint is unreadable or does not fit.
    """
    with _quiet():
        prepared = prepare(cfg, checkpoint, images, seed)
        with Bar('Making the step', 1 + len(_SECTIONS)) as bar:
            record = record_step(prepared)
            bar.advance(description='Drawing the page')
            return _page(record, bar), record


def _page(record: Record, bar: Bar) -> Page:
    prepared = record.prepared
    names = ', '.join(record.image_name(i) for i in range(len(record.samples)))
    page = Page(
        'One training step',
        f'What the training of this config does with {names}: forward, losses, backward, optimiser step.',
        facts={
            'config': prepared.cfg.filename or 'given as an object',
            'detector': type(prepared.model).__name__,
            'weights': prepared.weights,
            'images': len(record.samples),
            'learning rate': record.lr,
            'device': next(prepared.model.parameters()).device.type,
            **({'not shown': record.not_shown} if record.not_shown else {}),
        },
        warnings=find_warnings(record),
    )
    for title, add in _SECTIONS.items():
        if title not in record.absent:
            add(page, record)
        bar.advance()
    return page


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide MMEngine's log lines about every parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
