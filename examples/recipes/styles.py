"""Image to image: which picture shows the same thing, drawn by another artist?

Noto's emoji are queries and OpenMoji's what is searched. The starter model knows OpenMoji's drawings and no Noto picture;
the image tower alone is trained, on pairs of drawings of one concept, without any text. Measured are 400 emoji of concepts
that were not trained on.
"""

from docarray import DocList

from attune.schemas import TrainingExample
from client import AttuneClient
from examples.emoji.data import load, split
from examples.recipes.table import Table, rows_of

SETTINGS = {"epochs": 8, "batch_size": 256, "learning_rate": 6e-4, "precision": "fp32"}


def run(attune: AttuneClient, quick: bool = False) -> Table:
    """Trains and measures.

    Args:
        attune: client of a fine-tuning service.
        quick: little data and one epoch, to see that everything works.
    """
    settings = SETTINGS | ({"epochs": 1, "batch_size": 32} if quick else {})
    for name, examples in zip(("styles-train", "styles-test"), split(pairs()), strict=True):
        attune.push(name, DocList[TrainingExample](examples[:100] if quick else examples))
    tuned = attune.fit("starter", "styles-train", eval_data="styles-test", run_name="styles", **settings).wait()
    metrics = ["picture_to_match_recall@1", "picture_to_match_recall@5", "match_to_picture_recall@5"]
    return Table(rows_of(tuned, "Noto and OpenMoji", metrics), settings)


def pairs() -> list[TrainingExample]:
    """Each emoji as Noto draws it, with OpenMoji's drawing of the same one."""
    return [
        example.model_copy(update={"captions": [], "images": [other.image]})
        for example, other in zip(load("noto"), load("openmoji"), strict=True)
    ]
