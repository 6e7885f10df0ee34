"""What the selection of boxes tells an observer, such as tools/trace_objects.py.

Anchor generators, ``best_scores``, ``select_proposals`` and ``select_batch`` tell what they do. A detector with another
filter of its own calls ``tell`` with a ``Filtered``. Without an observer nothing is kept.

B images, N boxes, P proposals, K classes. Boxes are in pixels of the network's input.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from frdet.models.task_modules.suppression import Suppression


class Anchors(NamedTuple):
    """The anchors of all images: ``boxes`` (n_l, 4) of each level, finest first."""

    boxes: Sequence[Tensor]


class TopK(NamedTuple):
    """The anchors of a level that stay, because their scores are the best. Levels come finest first.

    Attributes:
        scores: (B, n_l) of all anchors, in any unit.
        index: (B, k_l) those that stay.
    """

    scores: Tensor
    index: Tensor  # type: ignore[assignment]  # the field, not tuple.index


class ProposalsSelected(NamedTuple):
    """Which of N boxes become proposals. N is the sum of k_l of the levels.

    Attributes:
        decoded: (B, N, 4) before they are clipped.
        boxes: (B, N, 4), clipped.
        scores: (B, N).
        level: (N,) int64.
        legal: (B, N) bool, whether the box is large enough and finite.
        kept: (B, N) bool, whether NMS keeps it.
        index: (B, P) those that become proposals, best score first.
        valid: (B, P) bool, False where padded.
        nms_iou_thr: the threshold of NMS.
    """

    decoded: Tensor
    boxes: Tensor
    scores: Tensor
    level: Tensor
    legal: Tensor
    kept: Tensor
    index: Tensor  # type: ignore[assignment]
    valid: Tensor
    nms_iou_thr: float


class DetectionsSelected(NamedTuple):
    """Which of P boxes with K classes become detections.

    Attributes:
        boxes: (B, P, K, 4), clipped.
        scores: (B, P, K) probabilities.
        valid: (B, P) bool, False where padded.
        candidate: (B, P, K) bool, whether the score is above the threshold and the box is large enough and finite.
        final: (B, P, K) scores after NMS, -inf where it drops the box. ``SoftNMS`` lowers scores.
        index: (B, D) those that become detections, in P * K, best score first.
        there: (B, D) bool, False where padded.
        score_thr, nms_iou_thr: the thresholds.
        nms: the rule by which boxes suppress others.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor
    candidate: Tensor
    final: Tensor
    index: Tensor  # type: ignore[assignment]
    there: Tensor
    score_thr: float
    nms_iou_thr: float
    nms: Suppression

    @property
    def kept(self) -> Tensor:
        """(B, P, K) bool, whether NMS keeps the box."""
        return self.final > -torch.inf


class Filtered(NamedTuple):
    """A stage of a user's detector that drops boxes.

    Attributes:
        name: of the stage, such as 'depth filter'.
        boxes: (B, N, 4) before it.
        kept: (B, N) bool.
        labels: (B, N) int64, if the boxes have a class already.
    """

    name: str
    boxes: Tensor
    kept: Tensor
    labels: Tensor | None = None


Event = Anchors | TopK | ProposalsSelected | DetectionsSelected | Filtered
_observers: list[Callable[[Event], None]] = []


@contextmanager
def observing(observer: Callable[[Event], None]) -> Iterator[None]:
    """Call ``observer`` with every event until the context ends. It must keep no tensor of several batches."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def tell(event: Event) -> None:
    """Give an event to the observers, if there are any."""
    for observer in _observers:
        observer(event)


def is_observed() -> bool:
    """Whether there is an observer: what only observers need is made only then."""
    return bool(_observers)
