"""Making a trace and its page at once, for those who make several."""

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from frdet.insight.trace.folders import PAGE
from frdet.insight.trace.page import write_trace_page
from frdet.insight.trace.running import trace_objects


def make_trace(cfg: Config, checkpoint: str, folder: Path, **options: Any) -> None:
    """Trace a checkpoint into ``folder``, and write the page of the trace there.

    Args:
        cfg: a whole config, which is not changed.
        options: more arguments of ``trace_objects``.

    Raises:
        UserError: config, data or checkpoint are wrong, or ``folder`` cannot be written.
    """
    trace_objects(copy.deepcopy(cfg), checkpoint, folder, **options)
    if is_main_process():
        write_trace_page(folder, folder / PAGE)
