"""Recipes: a task each, on real data, through the service. `python -m examples.recipes` runs them."""

RECIPES = ("classes", "definitions", "intents", "languages", "sentences", "styles", "variants")
