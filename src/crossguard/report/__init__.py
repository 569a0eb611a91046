"""Reports: one self-contained HTML page per run or comparison, and the same tables for terminals and programs."""

from crossguard.evaluate.statistics import Figure
from crossguard.report.certificates import certificate_entry, certificate_view, segmentation_view
from crossguard.report.page import render_report, write_report
from crossguard.report.runs import (
    certificate_table,
    print_certificates,
    print_retrieval,
    print_tasks,
    report_runs,
    retrieval_table,
    task_table,
)
from crossguard.report.tasks import TaskExampleView, TaskView
from crossguard.report.views import (
    Asked,
    CertificateView,
    CurveView,
    Difference,
    ExampleView,
    GalleryView,
    Hit,
    MapsView,
    RetrievalView,
    RunView,
    Share,
    Word,
)

__all__ = [
    "Asked",
    "CertificateView",
    "CurveView",
    "Difference",
    "ExampleView",
    "Figure",
    "GalleryView",
    "Hit",
    "MapsView",
    "RetrievalView",
    "RunView",
    "Share",
    "TaskExampleView",
    "TaskView",
    "Word",
    "certificate_entry",
    "certificate_table",
    "certificate_view",
    "print_certificates",
    "print_retrieval",
    "print_tasks",
    "render_report",
    "report_runs",
    "retrieval_table",
    "segmentation_view",
    "task_table",
    "write_report",
]
