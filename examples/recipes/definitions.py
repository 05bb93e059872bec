"""Text to text: which word has this meaning? A sentence encoder learns to find words by their definitions.

The start is all-MiniLM-L6-v2, which knows what sentences have in common. WordNet's definitions are queries, and the words
with that meaning, also those of all other held-out definitions, are what is searched. No labels are used.
"""

from docarray import DocList

from attune.schemas import TrainingExample
from client import AttuneClient
from examples.recipes.encoder import minilm
from examples.recipes.table import Table, rows_of
from examples.wordnet.data import definitions, split

HELD_OUT = 1000
LEARNT_FROM = 6000
"""Of the commonest words; more of them make it better, and take longer."""

SETTINGS = {"loss": "MultipleNegativesRankingLoss", "epochs": 2, "batch_size": 128, "precision": "fp32"}


def run(attune: AttuneClient, quick: bool = False) -> Table:
    """Trains and measures.

    Args:
        attune: client of a fine-tuning service.
        quick: little data and one epoch, to see that everything works.
    """
    settings = SETTINGS | ({"epochs": 1, "batch_size": 32} if quick else {})
    train, test = split(definitions(), HELD_OUT)
    for name, examples in (("definitions-train", train), ("definitions-test", test)):
        attune.push(name, DocList[TrainingExample](examples[: 200 if quick else LEARNT_FROM]))
    tuned = attune.fit(
        minilm(), "definitions-train", eval_data="definitions-test", run_name="definitions", **settings
    ).wait()
    rows = rows_of(tuned, "definitions and words", ["query_to_document_recall@1", "query_to_document_recall@5"])
    return Table(rows, settings)
