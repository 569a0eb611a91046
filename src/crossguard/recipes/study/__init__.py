"""Studies: many trainings at equal compute, judged alike, over several seeds."""

from crossguard.recipes.study.perform import perform_study
from crossguard.recipes.study.plan import StudyPlan, plan_study

__all__ = ["StudyPlan", "perform_study", "plan_study"]
