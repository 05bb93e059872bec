"""`make demo`: a small CLIP learns a style of emoji it has never seen, and then answers queries.

The starter model knows Twemoji and OpenMoji. Here it is fine-tuned on Google's Noto emoji, through the same service
and client as any other data; 400 Noto emoji are held out, by concept. Everything is left in `.demo/`. Works offline.
"""

import shutil
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")  # of dependencies about each other; nothing a reader of the demo can act on

from docarray import DocList
from rich.console import Console

from attune.schemas import TrainingExample
from client import AttuneClient
from examples.emoji.data import load, split
from flows.background import running

FOLDER = Path(".demo")
QUERIES = ("a smiling cat", "birthday cake", "snowy mountain")
# Another artist's style is another look, not other words: the text tower stays as it is, and keeps what it knows.
SETTINGS = {"epochs": 9, "batch_size": 256, "learning_rate": 6e-4, "lock_text": True, "precision": "fp32"}
console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Fine-tunes, shows before and after, searches."""
    start = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    artifact = fine_tune()
    search(artifact)
    console.print(f"\nDone in {time.monotonic() - start:.0f} s. The tuned model is in {artifact}. Next, your own data:\n")
    console.print("  .venv/bin/jina flow --uses flows/finetune.yml")
    console.print("  .venv/bin/python -m client fit --data captions.csv --model ViT-B-32#openai --name my-run")


def fine_tune() -> Path:
    """Pushes the data, fine-tunes, shows what changed; returns the folder of the tuned model."""
    console.rule("[bold]1. Fine-tune")
    console.print("Starting the service (gateway, run manager, four stages) ...")
    with running(Path("flows/finetune.yml"), FOLDER / "home", FOLDER / "finetune.log") as service:
        attune = AttuneClient(service.grpc)
        train, test = (DocList[TrainingExample](part) for part in split(load("noto")))
        console.print(f"Pushing {len(train)} emoji to learn from and {len(test)} to measure on, then training ...")
        attune.push("noto-train", train)
        attune.push("noto-test", test)
        run = attune.fit("starter", "noto-train", eval_data="noto-test", run_name="noto", **SETTINGS)
        if not Console(stderr=True).is_terminal:  # where no progress bar is drawn
            for line in run.stream_logs():
                console.print(line, markup=False)
        run.wait()
        console.rule("[bold]2. Before and after")
        run.display_metrics()
        run.display_examples(4)
        page = run.report(FOLDER / "report.html")
        console.print(f"All figures, curves and pictures of queries before and after: {page}")
        return run.save_artifact(FOLDER / "noto-clip")


def search(artifact: Path) -> None:
    """Indexes the Noto pictures with the tuned model and answers queries."""
    console.rule("[bold]3. Search with the tuned model")
    environment = {"ATTUNE_ARTIFACT": str(artifact.resolve()), "ATTUNE_INDEX": "noto"}
    with running(Path("flows/search.yml"), FOLDER / "home", FOLDER / "search.log", **environment) as service:
        attune = AttuneClient(search_url=service.grpc)
        attune.index(DocList[TrainingExample](load("noto")))
        for query in QUERIES:
            matches = attune.search(query, limit=3)
            console.print(f"  [bold]{query}[/]: " + ", ".join(f"{hit.text} ({hit.score:.2f})" for hit in matches))


if __name__ == "__main__":
    main()
