"""Whether the value of a metric measures anything."""

import math
from typing import Any

#: The names of COCO's values begin with these, after the prefix of the metric.
_COCO = ('bbox_mAP', 'bbox_AR')


def is_defined(name: str, value: Any) -> bool:
    """Whether ``value`` measures something, so that it may be compared and drawn.

    COCO's values are -1 if there is no object to measure. For another metric -1 is an ordinary number, and NaN or None
    says that there is nothing to measure.
    """
    is_number = value is not None and math.isfinite(value)
    return is_number and (value != -1 or not name.rpartition('/')[2].startswith(_COCO))
