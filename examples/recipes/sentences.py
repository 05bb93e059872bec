"""Text to text, without labels or pairs: a sentence encoder learns from sentences alone (SimCSE).

The start is all-MiniLM-L6-v2 with another pooling than it was trained with, its first token (`cls`), as an encoder has that
was never taught to embed sentences. WordNet's sentences are all that it learns from: each is embedded twice, with other
numbers dropped out, and finds itself. Weights are chosen by definitions and their words, and measured by others of these.
"""

from docarray import DocList

from attune.schemas import TrainingExample
from client import AttuneClient
from examples.recipes.encoder import minilm
from examples.recipes.table import Table, rows_of
from examples.wordnet.data import actions, definitions, split

HELD_OUT = 2000
SETTINGS = {"loss": "SimCSELoss", "model_options": {"pooler": "cls"}, "epochs": 2, "batch_size": 128, "precision": "fp32"}


def run(attune: AttuneClient, quick: bool = False) -> Table:
    """Trains and measures.

    Args:
        attune: client of a fine-tuning service.
        quick: little data and one epoch, to see that everything works.
    """
    settings = SETTINGS | ({"epochs": 1, "batch_size": 32} if quick else {})
    _, judged = split(definitions(), HELD_OUT)
    chosen_by, test = split(judged, HELD_OUT // 2)
    data = {
        "sentences": [TrainingExample(text=example.text) for example in actions()],
        "sentences-val": chosen_by,
        "sentences-test": test,
    }
    for name, examples in data.items():
        attune.push(name, DocList[TrainingExample](examples[:100] if quick else examples))
    tuned = attune.fit(
        minilm(),
        "sentences",
        val_data="sentences-val",
        eval_data="sentences-test",
        run_name="sentences",
        **settings,
    ).wait()
    rows = rows_of(tuned, "definitions and words", ["query_to_document_recall@1", "query_to_document_recall@5"])
    return Table(rows, settings)
