"""Recipes: one YAML file, in the order of the data flow, that says everything about a run."""

from hf_prompting.recipe.reader import ReadRecipe, read_recipe
from hf_prompting.recipe.schema import Recipe

__all__ = ["ReadRecipe", "Recipe", "read_recipe"]
