"""Studies: many trainings at equal compute, judged alike, over several seeds."""

from crossguard.recipes.study.perform import perform_study

__all__ = ["perform_study"]
