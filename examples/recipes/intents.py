"""Text to text, by labels: which sentences speak of the same sort of action?

The start is all-MiniLM-L6-v2. WordNet's sentences that show a verb at work are labelled with what the verb is about, one of
fifteen: motion, communication, weather. It learns from labels alone, as from messages sorted by what their writers want;
each held-out sentence then looks for others of its label among all held-out ones. Sentences of one meaning are on one side.
"""

from docarray import DocList

from attune.schemas import TrainingExample
from client import AttuneClient
from examples.recipes.encoder import minilm
from examples.recipes.table import Table, rows_of
from examples.wordnet.data import actions, split

HELD_OUT = 1000

SETTINGS = {"epochs": 3, "batch_size": 128, "precision": "fp32"}


def run(attune: AttuneClient, quick: bool = False) -> Table:
    """Trains and measures.

    Args:
        attune: client of a fine-tuning service.
        quick: little data and one epoch, to see that everything works.
    """
    settings = SETTINGS | ({"epochs": 1, "batch_size": 32} if quick else {})
    for name, examples in zip(("actions-train", "actions-test"), split(actions(), HELD_OUT), strict=True):
        attune.push(name, DocList[TrainingExample](examples[:300] if quick else examples))
    tuned = attune.fit(minilm(), "actions-train", eval_data="actions-test", run_name="intents", **settings).wait()
    return Table(
        rows_of(tuned, "sentences of one label", ["text_to_text_recall@1", "text_to_text_recall@5", "text_to_text_map@r"]),
        settings,
    )
