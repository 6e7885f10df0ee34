"""Whether the value of a metric measures anything."""

import math
from typing import Any

#: How the names of COCO's values begin, behind the prefix of the metric.
_COCO = ('bbox_mAP', 'bbox_AR')


def is_defined(name: str, value: Any) -> bool:
    """Whether ``value`` measures something, so that it may be compared and drawn.

    COCO's values are -1 where there is no object to measure. Another metric may give -1 as a number like any other; it
    says that there is nothing to measure with NaN or None.
    """
    if value is None or not math.isfinite(value):
        return False
    return value != -1 or not name.rpartition('/')[2].startswith(_COCO)
