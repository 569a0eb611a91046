"""The tables and figures of a study, over its seeds."""

from crossguard.report.study.collect import Estimate, Study, StudyRow, StudyTable, collect_study, estimate
from crossguard.report.study.markdown import study_markdown
from crossguard.report.study.page import write_study

__all__ = [
    "Estimate",
    "Study",
    "StudyRow",
    "StudyTable",
    "collect_study",
    "estimate",
    "study_markdown",
    "write_study",
]
