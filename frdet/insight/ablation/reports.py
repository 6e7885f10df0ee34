"""The reports of the runs of a study, to which the page of the study leads."""

import os
from pathlib import Path
from urllib.parse import quote

from frdet.apis.ablation.study import Job, Study
from frdet.engine.hooks.work_folder import FINISHED
from frdet.insight.page import Link
from frdet.insight.report import write_page
from frdet.progress import track

REPORT = 'report.html'


def write_reports(study: Study) -> list[str]:
    """Write the report of each finished run that has none, or one that is older than the end of the run.

    Returns:
        A sentence for each report that could not be written.
    """
    failures = []
    jobs = [job for job in study.jobs() if job.is_finished and not _is_reported(job)]
    for job in track(jobs, 'Writing reports', delay=0):
        try:
            write_page(job.work_dir, job.work_dir / REPORT)
        except Exception as error:  # a report only shows a run: the page of the study is made without it
            failures.append(f'{job.name} has no report ({type(error).__name__}: {error})')
    return failures


def _is_reported(job: Job) -> bool:
    report = job.work_dir / REPORT
    return report.is_file() and report.stat().st_mtime >= (job.work_dir / FINISHED).stat().st_mtime


def report_link(job: Job, folder: Path) -> Link | None:
    """A link from a page in ``folder`` to the report of a run; None if it has none."""
    report = job.work_dir / REPORT
    return Link('report', quote(Path(os.path.relpath(report, folder)).as_posix())) if report.is_file() else None
