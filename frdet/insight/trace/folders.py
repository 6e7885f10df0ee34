"""Traces on the disk: those of a work dir, whether they are up to date, and the links to their pages."""

from pathlib import Path

from frdet.insight.page import Link
from frdet.insight.trace.model import SUMMARY

#: The page that tools/trace_objects.py writes beside the files of a trace, or above the traces of several checkpoints.
PAGE = 'trace.html'
#: The folder in a work dir into which tools/trace_objects.py writes, if it is not told another one.
FOLDER = 'trace'


def find_traces(work_dir: Path) -> list[Path]:
    """The traces in the folders of a work dir and in the folders of these, the newest first."""
    found = [path for pattern in (f'*/{SUMMARY}', f'*/*/{SUMMARY}') for path in work_dir.glob(pattern)]
    return [path.parent for path in sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path))]


def find_comparisons(traces: list[Path]) -> list[Path]:
    """The pages that compare several of these traces: they lie above them."""
    pages = dict.fromkeys(folder.parent / PAGE for folder in traces)
    return [page for page in pages if page.is_file() and not page.with_name(SUMMARY).is_file()]


def is_outdated(folder: Path, checkpoint: Path) -> bool:
    """Whether a checkpoint was written after the trace in ``folder``, as when a model was trained again."""
    return checkpoint.is_file() and checkpoint.stat().st_mtime_ns > (folder / SUMMARY).stat().st_mtime_ns


def page_link(folder: Path, pages: Path, text: str) -> Link | str:
    """A link to the page of the trace in ``folder`` from a page in ``pages``; the text alone if there is none."""
    return Link.to(folder / PAGE, pages, text) if (folder / PAGE).is_file() else text
