"""`python -m recipes NAME --size small|full`, from the top of the repository: what `make recipe` runs."""

from __future__ import annotations

import sys

import click
from demo.story import Story, print_story, set_environment

from lmbatch.cli.common import print_table
from lmbatch.errors import LmbatchError, UsageError
from recipes.run import Outcome, RecipeRun
from recipes.table import CONFIGS, RECIPES, SIZES, Recipe, Size

EPILOG = """\b
Examples:
  python -m recipes s0
  python -m recipes s2 --size full --raw /data/wikipedia
  python -m recipes s0 --json > outcome.json
"""


@click.command(epilog=EPILOG)
@click.argument("name", type=click.Choice(["list", *RECIPES]))
@click.option("--size", type=click.Choice(SIZES), default="small", show_default=True)
@click.option("--raw", help="Folder or URI of the corpus's input files; default: what its config says.")
@click.option("--json", "as_json", is_flag=True, help="Print what it came to as JSON; stages go to stderr.")
def main(name: str, size: Size, raw: str | None, as_json: bool) -> None:
    """Run the recipe NAME from raw text to inference; `list` shows them. Run it again to go on where it stopped."""
    if name == "list":
        print_table(("recipe", "what it is"), [(recipe.name, recipe.title) for recipe in RECIPES.values()])
        return
    try:
        if not CONFIGS.is_dir():
            raise UsageError("there is no configs/ here", remedy="run it at the top of the repository")
        story = Story(out=sys.stderr if as_json else sys.stdout)
        outcome = RecipeRun(RECIPES[name], size, raw, story).run()
    except LmbatchError as error:
        raise SystemExit(_explain(error)) from error
    if as_json:
        click.echo(outcome.to_json())
        return
    print()
    print_story(story)
    print_outcome(RECIPES[name], outcome)


def print_outcome(recipe: Recipe, outcome: Outcome) -> None:
    """The facts of the README's table of recipes, and the samples."""
    print(f"\n{recipe.title}: {outcome.parameters:,} parameters, {outcome.tokens:,} tokens of text, all kept")
    print(f"(the published way keeps {outcome.kept_by_seed:.1%}: {recipe.seed_way.words})\n")
    print("\n\n".join(outcome.samples))


def _explain(error: LmbatchError) -> str:
    remedy = getattr(error, "remedy", None)
    return f"recipe: {error}" + (f"\n\n{remedy}" if remedy else "")


if __name__ == "__main__":
    set_environment()
    main()
