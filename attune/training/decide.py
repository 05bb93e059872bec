"""A run's recipe, decided once: training goes on with the one it began with."""

import json
from dataclasses import asdict, fields

from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.errors import TrainingError
from attune.files import write_text
from attune.models.clip import Clip
from attune.runs.folder import RunFolder
from attune.settings import FinetuningSettings
from attune.training.distributed import World, agree
from attune.training.history import History
from attune.training.novelty import novelty
from attune.training.recipe import Recipe, choose_recipe

KEPT = "recipe.json"
"""Among the checkpoints: a run that is tried again from the beginning loses it with them."""


def decide(
    folder: RunFolder,
    settings: FinetuningSettings,
    clip: Clip,
    train: Pairs,
    cache: PixelCache | None,
    world: World,
    history: History,
) -> Recipe:
    """The recipe this run's training began with; at its first beginning, what settings, model and data ask for.

    What is kept is followed to the letter: a checkpoint fits no other, and what the data's novelty comes to on another
    device, or what a later Attune's rules would make of it, may be another one.

    Args:
        folder: of the run.
        settings: of the run.
        clip: the starting model.
        train: pairs to learn from.
        cache: their pixels or embeddings.
        world: all processes, which all must call this.
        history: is told of what is decided.

    Raises:
        TrainingError: if it was begun by an Attune whose recipes say other things.
    """
    kept = folder.checkpoints / KEPT
    if agree(kept.exists(), world):
        return _read(kept.read_text(encoding="utf-8"), folder.reference)
    new = 1.0 if settings.from_scratch else agree(novelty(clip, train, cache, settings.seed), world)
    recipe = choose_recipe(settings, clip.model, train, new)
    if new:
        history.log(
            f"novelty of the data to the model {new:g} (0: it finds each right answer, 1: as by chance), learning rate "
            f"{recipe.learning_rate:g}",
            kind="recipe",
        )
    if world.is_main:
        write_text(kept, json.dumps(asdict(recipe), indent=2))
    return recipe


def _read(text: str, run: str) -> Recipe:
    kept = json.loads(text)
    if other := sorted({*kept} ^ {field.name for field in fields(Recipe)}):
        raise TrainingError(
            f"Run {run!r} was begun by another version of Attune, whose recipes differ in {', '.join(other)}. Go on with "
            f"that version, or begin anew: `client retry {run}`"
        )
    return Recipe(**kept)
