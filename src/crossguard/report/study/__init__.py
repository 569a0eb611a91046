"""The tables and figures of a study, over its seeds."""

from crossguard.report.study.collect import SeedMean, Study, StudyRow, StudyTable, collect_study, seed_mean
from crossguard.report.study.markdown import study_markdown
from crossguard.report.study.page import write_study

__all__ = [
    "SeedMean",
    "Study",
    "StudyRow",
    "StudyTable",
    "collect_study",
    "seed_mean",
    "study_markdown",
    "write_study",
]
