"""Image to image, by labels: which pictures are of one sort?

Noto's emoji are labelled with what they are about, one of nine: flags, food and drink, animals and nature. The starter
model, which knows OpenMoji's drawings and no Noto picture, learns from labels alone, by two losses: triplets with semihard
negatives, and ArcFace, which learns a direction for each class. Each held-out emoji, of concepts that were not trained on,
then looks for others of its label among all held-out ones.
"""

from docarray import DocList

from attune.schemas import TrainingExample
from client import AttuneClient
from examples.emoji.data import load, split
from examples.recipes.table import Table, rows_of

LOSSES = {
    "triplets, semihard": {
        "loss": "TripletMarginLoss",
        "miner": "TripletMarginMiner",
        "miner_options": {"type_of_triplets": "semihard"},
    },
    "ArcFace": {"loss": "ArcFaceLoss"},
}
SETTINGS = {"epochs": 8, "batch_size": 128, "precision": "fp32"}
METRICS = ["picture_to_picture_recall@1", "picture_to_picture_recall@5", "picture_to_picture_map@r"]


def run(attune: AttuneClient, quick: bool = False) -> Table:
    """Trains and measures, once with each loss.

    Args:
        attune: client of a fine-tuning service.
        quick: little data and one epoch, to see that everything works.
    """
    for name, examples in zip(("classes-train", "classes-test"), split(labelled()), strict=True):
        attune.push(name, DocList[TrainingExample](examples[::12] if quick else examples))
    rows, settings = [], {}
    for number, (what, loss) in enumerate(LOSSES.items(), start=1):
        settings[what] = SETTINGS | loss | ({"epochs": 1, "batch_size": 32} if quick else {})
        tuned = attune.fit(
            "starter", "classes-train", eval_data="classes-test", run_name=f"classes-{number}", **settings[what]
        ).wait()
        rows += rows_of(tuned, what, METRICS)
    return Table(rows, settings)


def labelled() -> list[TrainingExample]:
    """Noto's emoji with their categories and no captions; parts of emoji, such as skin tones, are of none."""
    return [example.model_copy(update={"captions": []}) for example in load("noto") if example.label != "component"]
