"""Reports: one self-contained HTML page per run or comparison, and the same tables for terminals and programs."""

from crossguard.report.certificates import certificate_entry, certificate_view, early_view, segmentation_view
from crossguard.report.page import render_report, write_report
from crossguard.report.runs import (
    certificate_table,
    export_runs,
    print_certificates,
    print_results,
    report_runs,
    result_table,
    write_figures,
)
from crossguard.report.views import CertificateView, CurveView, Difference, MapsView, ResultView, RunView

__all__ = [
    "CertificateView",
    "CurveView",
    "Difference",
    "MapsView",
    "ResultView",
    "RunView",
    "certificate_entry",
    "certificate_table",
    "certificate_view",
    "early_view",
    "export_runs",
    "print_certificates",
    "print_results",
    "render_report",
    "report_runs",
    "result_table",
    "segmentation_view",
    "write_figures",
    "write_report",
]
