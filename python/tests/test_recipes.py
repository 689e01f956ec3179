"""Each program of examples/recipes, which docs/recipes.md explains, does what it says."""

import subprocess
import sys

import pytest
from conftest import ROOT, environment

RECIPES = sorted((ROOT / "examples/recipes").glob("*.py"))
TIMEOUT_S = 60


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_works(agent, recipe):
    # As a user runs it, fork warnings of later Pythons included: they say what the recipe is about.
    ran = subprocess.run(
        [sys.executable, recipe],
        env=environment(MITOSIS_AGENT=str(agent.socket)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(ran.stdout.splitlines()) == 1, ran.stdout


def test_each_recipe_is_explained():
    text = (ROOT / "docs/recipes.md").read_text()
    missing = [recipe.name for recipe in RECIPES if f"examples/recipes/{recipe.name}" not in text]
    assert RECIPES
    assert not missing
