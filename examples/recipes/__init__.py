"""Recipes: a task each, on real data, through the service. `python -m examples.recipes` runs them."""

RECIPES = ("definitions", "languages", "styles")
