"""The reports and traces of the runs of a study, to which the page of the study leads."""

from pathlib import Path

from frdet.apis.ablation.study import Job, Study
from frdet.engine.hooks.work_folder import FINISHED
from frdet.insight.ablation.traces import trace_folder
from frdet.insight.page import Link
from frdet.insight.report import write_page
from frdet.insight.trace.folders import PAGE
from frdet.insight.trace.model import SUMMARY
from frdet.progress import track

REPORT = 'report.html'


def write_reports(study: Study) -> list[str]:
    """Write the report of each finished run that has none, or one that is older than the end of the run or its trace.

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
    report, told = job.work_dir / REPORT, (job.work_dir / FINISHED, trace_folder(job) / SUMMARY)
    return report.is_file() and all(report.stat().st_mtime >= path.stat().st_mtime for path in told if path.is_file())


def report_link(job: Job, folder: Path) -> Link | None:
    """A link from a page in ``folder`` to the report of a run; None if it has none."""
    report = job.work_dir / REPORT
    return Link.to(report, folder, 'report') if report.is_file() else None


def trace_link(job: Job, folder: Path) -> Link | None:
    """A link from a page in ``folder`` to the page of the trace of a run; None if it has none."""
    page = trace_folder(job) / PAGE
    return Link.to(page, folder, 'trace') if page.is_file() else None
