"""What a study has found about each variant, as plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The differences of a quantity, variant minus base, of the pairs of runs with the same seed.

    Attributes:
        by_seed: seed -> difference.
        mean: of the differences.
        spread: their standard deviation with n - 1; NaN with one pair.
        interval: of the mean, by Student's t with n - 1 degrees of freedom; None with fewer than two pairs.
        p: two-sided p value of the same test; None with fewer than two pairs.
        q: ``p`` corrected for the number of comparisons beside it, by Benjamini and Hochberg; None without ``p``.
        seeds_to_tell: the number of seeds with which the interval would exclude 0, if mean and spread stay the same;
            None with fewer than two pairs, or if more than 1000 would be needed.
    """

    by_seed: Mapping[int, float]
    mean: float
    spread: float
    interval: Interval | None
    p: float | None
    q: float | None
    seeds_to_tell: int | None


@dataclass(frozen=True)
class Conclusion:
    """One variant, the base included.

    Attributes:
        variant: its name.
        values: seed -> value of the study's metric at the end of the run; a run that is not finished has none.
        mean, spread: of the values; NaN where there are too few.
        missing: run name -> why it has no value, in a sentence.
        notes: sentences about what could not be computed or compared.
        difference: to the base; None for the base itself, and without any pair.
        verdict: 'better', 'worse', 'not told apart yet: 8 more seeds', ...; '' for the base.
        images: seed -> interval of the difference of one pair over the validation images, by bootstrap.
        over_images: the same of the mean difference of all pairs; None unless ``images`` has all pairs.
        sizes: name of another of COCO's metric values ('AP50', 'AP_s') -> difference to the base. ``q`` is
            corrected over all of them and all classes of the variant.
        classes: name of a class -> difference of its AP to the base.
        errors: kind of error -> AP that it costs, the mean over seeds.
        lost: name of a stage of the detector -> percent of the objects that it lost, the mean over the traced runs;
            the objects that are found are its last stage. Empty if no run is traced.
        stages: name of a stage -> difference of that percentage to the base. ``q`` is corrected over all stages.
        seconds: of an iteration, the median over all runs; None if not known, as for all below.
        hours: of a whole training without validations, the mean over finished runs.
        memory: MB, the most of all runs.
        params: number of parameters.
        flops: of the inference of one image of ``input_size``.
    """

    variant: str
    values: Mapping[int, float]
    mean: float
    spread: float
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    difference: Difference | None = None
    verdict: str = ''
    images: Mapping[int, Interval] = field(default_factory=dict)
    over_images: Interval | None = None
    sizes: Mapping[str, Difference] = field(default_factory=dict)
    classes: Mapping[str, Difference] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    lost: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, Difference] = field(default_factory=dict)
    seconds: float | None = None
    hours: float | None = None
    memory: float | None = None
    params: int | None = None
    flops: int | None = None
