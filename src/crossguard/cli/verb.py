"""What the verbs that carry out a recipe share: their options, reading the recipe, and printing what came out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from crossguard.cli.console import print_json, progress, told_clearly
from crossguard.cli.options import (
    AsJson,
    Device,
    DryRun,
    Imports,
    MaxSamples,
    Overrides,
    Quiet,
    RecipeSource,
    Run,
    Seed,
    SkipBad,
    as_overrides,
)
from crossguard.imports import import_parts
from crossguard.launch import alone, is_main, launched
from crossguard.progress import Reporter

if TYPE_CHECKING:
    from crossguard.runs import RunFolder


@dataclass(frozen=True)
class Outcome:
    """What a verb prints.

    Args:
        show: prints it for people.
        value: returns the same as JSON values, for `--json`.
    """

    show: Callable[[], None]
    value: Callable[[], Any]


Work = Callable[[Any, Reporter], Outcome]


def recipe_verb(
    app: typer.Typer, *, plan: Work | None = None, images: bool = False, apart: bool = False
) -> Callable[[Work], Work]:
    """Make a verb of a function that carries out a checked recipe; its name is the verb's, its docstring the help.

    The function gets the recipe, of the schema that `crossguard.recipes.VERBS` holds for the verb, and a reporter of
    progress.

    Args:
        app: the command line.
        plan: what `--dry-run` does instead; without it the verb has no such option.
        images: the verb's data are images with captions, some of which `--skip-bad` may leave out.
        apart: of several processes each works by itself; otherwise they meet first.
    """

    def add(work: Work) -> Work:
        verb = work.__name__

        def command(
            recipe: RecipeSource,
            overrides: Overrides = None,
            run: Run = None,
            seed: Seed = None,
            device: Device = None,
            max_samples: MaxSamples = None,
            skip_bad: SkipBad = False,
            dry_run: DryRun = False,
            imports: Imports = None,
            quiet: Quiet = False,
            as_json: AsJson = False,
        ) -> None:
            with told_clearly():
                import_parts(imports or ())
                from crossguard.recipes import VERBS, RecipeError, check_names, read_recipe, the_recipe

                changes = as_overrides(overrides, run=run, seed=seed, device=device, max_samples=max_samples)
                if skip_bad:
                    changes.append("data.options.skip_bad=true")
                read = read_recipe(recipe, changes)
                settings = the_recipe(read, VERBS[verb])
                problems = check_names(read)
                if problems:
                    raise RecipeError(recipe, problems)
                if dry_run and plan and not is_main():
                    return
                with _others(settings, apart=apart, unasked=dry_run and plan is not None):
                    bars = progress(quiet=quiet or not is_main())
                    outcome = (plan if dry_run and plan else work)(settings, bars)
                    if not is_main():
                        return
                    if as_json:
                        print_json(outcome.value())
                    else:
                        outcome.show()

        unknown = ([] if plan else ["dry_run"]) + ([] if images else ["skip_bad"])
        known = signature(command)
        command.__signature__ = known.replace(  # type: ignore[attr-defined]
            parameters=[option for name, option in known.parameters.items() if name not in unknown]
        )
        app.command(verb, help=work.__doc__)(command)
        return work

    return add


@contextmanager
def _others(recipe: Any, *, apart: bool, unasked: bool) -> Iterator[None]:
    """Meet the processes that were launched together, see that they were asked for the same, and end with them where
    one of them fails."""
    if unasked:
        with alone():
            yield
        return
    if apart or launched() == 1:
        yield
        return
    from crossguard.recipes.perform import choose_device
    from crossguard.world import join

    world = join(choose_device(recipe.device))
    with world.together():
        world.same("recipe", recipe.model_dump(mode="json", exclude={"device"}))
        yield


def report_run(recipe: Any, perform: Callable[["RunFolder | None"], object]) -> Path:
    """Open the recipe's run, perform, write its report and finish it; of several processes the main one alone has a
    run, and writes.

    Returns:
        The report's path.

    Raises:
        ValueError: a name that no table holds, or a run folder with other settings.
    """
    from crossguard.recipes import open_run
    from crossguard.report import report_runs

    if not is_main():
        perform(None)
        return Path(recipe.run) / "report.html"
    with open_run(recipe, command=sys.argv) as folder:
        perform(folder)
        page = report_runs([folder.path], folder.path / "report.html")
        folder.finish()
    return page
