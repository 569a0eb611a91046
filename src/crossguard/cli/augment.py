"""`crossguard augment`: one-to-many pairs made once, offline, and measured, as a recipe says."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from crossguard.checks import visible
from crossguard.cli.verb import Outcome, recipe_verb
from crossguard.progress import Reporter, cell

if TYPE_CHECKING:
    from crossguard.augment import AugmentedPairs, Measures
    from crossguard.recipes import AugmentRecipe


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""

    @recipe_verb(app, images=True)
    def augment(recipe: "AugmentRecipe", reporter: Reporter) -> Outcome:
        """Make more texts and pictures of the recipe's data and measure them. An interrupted run resumes.

        For example: crossguard augment emoji-augment per_sample=8 run=runs/eight

        Several GPUs: torchrun --nproc-per-node 4 --no-python -- crossguard augment RECIPE
        """
        from crossguard.augment import read_measures

        pairs = carry_out(recipe, command=sys.argv, reporter=reporter)
        measures = read_measures(recipe.run)

        def show() -> None:
            print_measures(measures)
            print(
                f"{len(pairs.images)} pictures ({pairs.original_images} original), {len(pairs.texts)} texts "
                f"({pairs.original_texts} original), {len(pairs.links)} links\naugmented pairs: {visible(recipe.run)}"
            )

        return Outcome(show, lambda: summary(recipe.run, pairs, measures))


def carry_out(recipe: "AugmentRecipe", *, command: Sequence[str] | None = None, reporter: Reporter) -> "AugmentedPairs":
    """Augment as a recipe says, into its run folder.

    Raises:
        RecipeError: a name that no table holds.
        ValueError: bad options, or a run folder with other settings.
    """
    from crossguard.augment import augment, thin
    from crossguard.models import load_model
    from crossguard.recipes import RecipeError, check_names, choose_device
    from crossguard.recipes.perform import read_pairs

    problems = check_names(recipe)
    if problems:
        raise RecipeError(recipe.run, problems)
    device = choose_device(recipe.device)
    whole = read_pairs(recipe.data, recipe.max_samples)
    part = thin(
        whole,
        texts_per_image=recipe.originals.texts_per_image,
        images_per_text=recipe.originals.images_per_text,
        seed=recipe.seed,
    )
    return augment(
        part,
        sources=[source.model_dump() for source in recipe.sources],
        per_sample=recipe.per_sample,
        seed=recipe.seed,
        folder=recipe.run,
        model=None if recipe.model is None else load_model(recipe.model, device=device),
        min_alignment=recipe.min_alignment,
        pool=None if part is whole else whole,
        batch_size=recipe.batch_size,
        progress=reporter,
        device=device,
        command=command,
    )


def summary(folder: str, pairs: "AugmentedPairs", measures: Sequence["Measures"]) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "run": folder,
        "images": len(pairs.images),
        "texts": len(pairs.texts),
        "links": len(pairs.links),
        "original_images": pairs.original_images,
        "original_texts": pairs.original_texts,
        "sources": [measure.to_dict() for measure in measures],
    }


def print_measures(measures: Sequence["Measures"]) -> None:
    """Print one row per source."""
    from rich.console import Console
    from rich.table import Table

    grid = Table("source", box=None, header_style="bold")
    for column in ("made", "added", "filtered", "alignment", "diversity", "gap"):
        grid.add_column(column, justify="right")
    for row in measures:
        numbers = (row.alignment, row.diversity, row.gap)
        grid.add_row(
            cell(f"{row.source} ({row.gives})" if row.source == "originals" else row.source),
            *(str(count) for count in (row.made, row.added, row.filtered)),
            *("-" if number is None else f"{number:.4f}" for number in numbers),
        )
    Console().print(grid)
