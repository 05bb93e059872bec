"""Runs on embeddings: an `mlp` trained, measured, exported, gone on from, and searched with."""

import json
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from attune.config import check_settings
from attune.data import store
from attune.data.embeddings import to_bytes
from attune.data.pairs import load_pairs
from attune.data.parts import load_parts
from attune.data.read import read_examples
from attune.errors import DataError, ModelError, SearchError, SettingsError, TrainingStopped
from attune.evaluation.kept_ranks import FILE, unpack
from attune.evaluation.measure import pixels_of
from attune.kinds import EMBEDDING
from attune.metrics import mean_recall
from attune.models.clip import load_clip, load_folder
from attune.models.mlp_folder import CONFIG
from attune.report.card import model_card
from attune.room import check_fits, disk_needed
from attune.room import count as counts_of
from attune.runs.folder import RunFolder
from attune.runs.models import ancestors
from attune.schemas import DatasetReport, FinetuningRun, SearchDocument, TrainingExample
from attune.search.encoder import embed, load_encoder
from attune.search.index import Index
from attune.settings import ModelOptions
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from attune.validation import validate
from client.display import examples_tables, metrics_table, runs_table
from client.search import search_documents, search_query
from tests.attune.embeddings import DIMENSION, sounds, vectors
from tests.attune.matches import drawings
from tests.attune.test_training import assert_equal, checkpoint, weights
from tests.attune.texts import questions
from tests.attune.trained import QUICK, of_kind, start, validations
from tests.client.test_client import printed

Push = Callable[..., DatasetReport]

LEARNT = {"train_data": "sounds", "epochs": 15, "learning_rate": 1e-2, "eval_split": 0.25, "augmentation": "auto"}
FEW = {"train_data": "few", "epochs": 2, "batch_size": 8, "augmentation": "auto"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, push: Push) -> RunFolder:
    """A run on embeddings that went through all stages; its home has them as `sounds`, and others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("embeddings")))
        push("sounds", sounds(160, matches=2))
        push("few", sounds(40))
        push("short", [TrainingExample(embedding=[1.0, n], embeddings=[[2.0, n]]) for n in range(20)])
        push("drawings", drawings(20))
        push("questions", questions(20))
        folder = start("tuned", "mlp", **LEARNT)
        for stage in ("train", "evaluate", "export"):
            run_stage(stage, "tuned")
        return folder


def test_it_learns_which_embeddings_belong_together(tuned: RunFolder) -> None:
    run = tuned.load()
    result = run.evaluation

    assert run.training.best_recall > run.training.start_recall + 0.2
    for direction in ("match_to_embedding", "embedding_to_match"):
        assert result.after[f"{direction}_recall@10"] > result.before[f"{direction}_recall@10"] + 0.2
        assert result.difference_low[f"{direction}_recall@10"] > 0
    assert (result.images, result.texts, result.captions, result.matches, result.dimension) == (40, 0, 0, 80, DIMENSION)
    assert result.kind is EMBEDDING
    assert run.training.recipe["augmentation"] == "none"
    assert run.settings["model_options"]["input_dim"] == DIMENSION


def test_before_is_what_the_given_embeddings_find(tuned: RunFolder) -> None:
    run = tuned.load()
    test = load_parts(check_settings(run.settings), run.train_fingerprint).test
    given = {to_bytes(row): row / np.linalg.norm(row) for rows in vectors(160, 2) for row in rows}
    cache = pixels_of(load_clip("mlp", options=ModelOptions(input_dim=DIMENSION)), test)
    assert cache is not None
    items, matches = (
        np.stack([given[to_bytes(row)] for row in cache.pixels[cache.rows(keys)]]) for keys in (test.images, test.texts)
    )
    own = np.repeat(np.arange(len(test)), 2)
    first = own[(items @ matches.T).argmax(1)] == np.arange(len(test))

    assert run.evaluation.before["embedding_to_match_recall@1"] == pytest.approx(first.mean())


def test_the_artifact_holds_these_files_and_what_was_trained(tuned: RunFolder) -> None:
    run, artifact = tuned.load(), load_folder(tuned.artifact)
    chosen = load_file(tuned.chosen_weights)

    assert set(run.artifact.files) == {
        *("mlp_config.json", "model.safetensors", "README.md", "settings.json", "metrics.json", "manifest.json")
    }
    assert run.artifact.max_difference < 1e-6
    assert_equal(dict(artifact.model.state_dict()), chosen)
    assert (artifact.input_dim, artifact.config["embed_dim"], artifact.towers) == (DIMENSION, DIMENSION, ("image",))


def test_the_card_opens_the_artifact_with_torch_alone(tuned: RunFolder) -> None:
    card = (tuned.artifact / "README.md").read_text()
    data = ModelCard(card).data
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, object] = {}

    exec(code.replace("PATH_OF_THIS_FOLDER", str(tuned.artifact)), names)  # what the card tells users to do

    given = vectors(20)[:, 0]
    found = names["tuned"](torch.from_numpy(given))  # type: ignore[operator]
    np.testing.assert_allclose(found.numpy(), load_folder(tuned.artifact).encode_images(given), atol=1e-6)
    assert "open_clip" not in card
    assert "library_name" not in card
    assert (data.pipeline_tag, data.tags) == ("feature-extraction", ["mlp", "attune"])
    assert "On 40 held-out embeddings with 80 matches." in card


def test_figures_and_the_terminal_speak_of_embeddings(tuned: RunFolder) -> None:
    lines = [event.message for event in tuned.events()]
    facts = json.loads((tuned.report / "metrics.json").read_text())
    ranks = unpack((tuned.path / FILE).read_bytes())
    run, examples = tuned.load(), json.loads((tuned.report / "examples.json").read_text())

    assert "measuring the model before training: 40 held-out embeddings with 80 matches" in lines
    assert not any("picture" in line for line in lines if "no zero-shot, which is for pictures" not in line)
    assert "linear_probe" in [section["name"] for section in facts["sections"]]
    assert {name.rpartition("_")[0] for name in ranks} == {"match_to_embedding", "embedding_to_match"}
    assert "tuned: 40 held-out embeddings with 80 matches" in printed(metrics_table(run))
    assert "✓ a match of the embedding" in printed(examples_tables(examples, ("before", "after"), 1, EMBEDDING))
    assert "(embedding to match)" in printed(runs_table([run]), 200)


def test_the_report_shows_labels_and_keys_and_no_pictures(tuned: RunFolder) -> None:
    page = (tuned.report / "index.html").read_text()
    run = tuned.load()
    pairs = load_pairs(run.train_fingerprint)

    assert not (tuned.report / "examples.png").exists()
    assert "<img" not in page
    assert page.count("<article") > 6
    assert "40 embeddings with 80 matches" in page
    assert "the same given embeddings" in page
    assert "image tower" not in page
    assert sum(f"{label} {key[:12]}" in page for label, key in zip(pairs.labels, pairs.images, strict=True)) > 6


def test_matches_are_indexed_and_searched_by_an_embedding(tuned: RunFolder) -> None:
    examples, rows = sounds(60), vectors(60)
    documents = list(search_documents(read_examples([*examples, examples[0]])))
    encoder, index = load_encoder("tuned", towers="image"), Index("sounds")
    embed(encoder, documents)
    index.upsert(documents)
    asked = [search_query(row[0].tolist()) for row in rows]
    embed(encoder, asked)

    found = index.search(asked, 5)

    assert index.count() == 60  # each match once
    right = [one.key in [match.key for match in hits] for one, hits in zip(documents, found, strict=False)]
    given = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    before = np.argsort(-(given[:, 0] @ given[:, 1].T))[:, :5]
    assert np.mean(right) > (before == np.arange(60)[:, None]).any(1).mean() + 0.2
    assert {match.text for match in found[0]} <= {one.label for one in examples}
    by_numbers = [SearchDocument(embedding=example.embeddings[0]) for example in examples]
    embed(encoder, by_numbers)
    assert [one.embedding for one in by_numbers] == [one.embedding for one in documents[:60]]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (SearchDocument(text="a bell"), "it has no embedding, and nothing else can be embedded"),
        (SearchDocument(embedding=[1.0, 2.0]), "its embedding has 2 numbers. Give it an embedding of 24 numbers"),
        (SearchDocument(embedding=[0.0] * DIMENSION), "its embedding cannot be used: its 24 numbers are all zero"),
        (SearchDocument(embedding=[float("nan")] * DIMENSION), "24 of its 24 numbers are missing"),
        (SearchDocument(image=b"no picture"), "its embedding cannot be used: it is no .npy file"),
        (SearchDocument(embedding=[1.0] * DIMENSION, model="abc"), "was made by an Encoder already"),
    ],
)
def test_documents_without_a_usable_embedding_are_named(tuned: RunFolder, document: SearchDocument, said: str) -> None:
    with pytest.raises(SearchError, match=r"document 1: ") as caught:
        embed(load_encoder("tuned"), [document])
    assert said in str(caught.value)


def test_a_resumed_training_ends_at_the_weights_of_an_unbroken_one(tuned: RunFolder) -> None:
    more = {**FEW, "hard_negatives": 0.5, "model_options": {"dropout": 0.2, "hidden_sizes": [16, 8]}}
    unbroken, broken = (start(name, "mlp", **more) for name in ("unbroken", "broken"))
    run_stage("train", "unbroken")
    asked = count(1)
    with pytest.raises(TrainingStopped):
        fit(prepare(broken, check_settings(broken.load().settings), stop=lambda: next(asked) == 6))
    assert (broken.checkpoints / "within.pt").exists()

    run_stage("train", "broken")

    for name in ("best", "chosen"):
        assert_equal(weights(broken, name), weights(unbroken, name))
    assert_equal(checkpoint(broken), checkpoint(unbroken))


def test_pieces_of_a_batch_teach_what_the_whole_batch_does(tuned: RunFolder) -> None:
    more = {**FEW, "epochs": 1, "multi_positive": True, "train_data": "sounds"}
    whole, pieces = start("whole", "mlp", **more), start("pieces", "mlp", **more, micro_batch_size=3)
    for folder in (whole, pieces):
        run_stage("train", folder.reference)

    assert [loss for _, loss, _ in validations(pieces)][1:] == pytest.approx(
        [loss for _, loss, _ in validations(whole)][1:], rel=1e-4
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("linear", {"model_options": {"hidden_sizes": []}}),
        ("deep", {"model_options": {"hidden_sizes": [32, 16], "dropout": 0.1, "output_dim": 12, "matryoshka_dims": [4]}}),
        ("wide", {"model_options": {"output_dim": 40}}),
        ("lora", {"lora_rank": 2}),
        ("head", {"train_last_blocks": 0}),
        ("half", {"artifact_precision": "fp16", "precision": "bf16", "ema_decay": 0.5}),
        ("scratch", {}),
        ("triplets", {"loss": "TripletMarginLoss"}),
        ("classes", {"loss": "ArcFaceLoss"}),
        ("memory", {"loss": "CrossBatchMemory", "loss_options": {"loss": {"name": "TripletMarginLoss"}}}),
    ],
)
def test_ways_to_train(tuned: RunFolder, name: str, changes: dict[str, object]) -> None:
    model = "mlp#scratch" if name == "scratch" else "mlp"
    folder = start(f"way-{name}", model, **{**FEW, "learning_rate": 1e-2, **changes})
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, folder.reference)

    first, best = weights(folder, "start"), weights(folder, "best")
    moved = {key for key in first if not torch.equal(first[key], best[key])} - {"logit_scale"}
    if moved:  # the start may be best
        assert ("visual.proj.weight" in moved) == (name != "lora")
        assert ("visual.layers.0.weight" in moved) == (name not in ("linear", "head"))
    run, options = folder.load(), folder.load().settings["model_options"]
    assert run.artifact.max_difference < 1e-4
    artifact = load_folder(folder.artifact)
    assert artifact.config["embed_dim"] == (options["output_dim"] or DIMENSION)
    assert artifact.config["hidden_sizes"] == ([512] if options["hidden_sizes"] is None else list(options["hidden_sizes"]))
    assert artifact.matryoshka_dims == (tuple(options["matryoshka_dims"]) if run.training.chosen != "start" else ())


def test_a_wider_start_finds_the_same_and_a_random_one_does_not(tuned: RunFolder) -> None:
    given = vectors(30)[:, 0]
    same = given @ given.T / np.outer(*[np.linalg.norm(given, axis=1)] * 2)

    for options, name, alike in (
        ({}, "mlp", True),
        ({"output_dim": 40, "hidden_sizes": []}, "mlp", True),
        ({"output_dim": 8}, "mlp", False),
        ({}, "mlp#scratch", False),
    ):
        found = load_clip(name, options=ModelOptions(input_dim=DIMENSION, **options)).encode_images(given)
        assert np.allclose(found @ found.T, same, atol=1e-5) == alike
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_run_goes_on_from_another_with_its_optimizer(tuned: RunFolder) -> None:
    more = {key: value for key, value in LEARNT.items() if key != "epochs"}
    settings = {**QUICK, **more, "model_artifact": "tuned", "continue_optimizer": True, "epochs": 1}
    RunFolder.create(FinetuningRun(name="further", settings=settings))
    for stage in ("validate", "train", "evaluate", "export"):
        run_stage(stage, "further")
    folder = RunFolder.open("further")

    assert_equal(weights(folder, "start"), weights(tuned, "chosen"))
    assert [one.path.name for one in ancestors("further")] == ["further", "tuned"]


def test_tuned_embeddings_are_compared_with_the_given_ones(tuned: RunFolder) -> None:
    settings = {"model": "tuned", "eval_data": "few", "baseline": "mlp", "devices": "cpu"}
    RunFolder.create(FinetuningRun(name="beside", settings=settings))
    for stage in ("validate", "evaluate"):
        run_stage(stage, "beside")
    result = RunFolder.open("beside").load().evaluation

    assert mean_recall(result.after) > mean_recall(result.before) + 0.2
    assert "model_options" not in RunFolder.open("beside").load().settings


def test_a_callback_lets_embeddings_look_among_matches(tuned: RunFolder) -> None:
    folder = start("watched", "mlp", **FEW, callbacks=[{"query_data": "few", "limit": 5, "gather_examples": True}])
    run_stage("train", "watched")

    assert [look.values["epoch"] for look in of_kind(folder, "callback")] == [0, 1, 2]
    gathered = json.loads((folder.report / "callback-1.json").read_text())["examples"]
    assert {example["query"] for example in gathered} <= set(load_pairs(store.describe("few").fingerprint).names)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {"model": "starter"},
            SettingsError,
            "'starter' embeds images and texts, and the data holds embeddings that another",
        ),
        ({"train_data": "drawings"}, SettingsError, "there are none to tell how many"),
        ({"model": "tuned", "train_data": "drawings"}, SettingsError, "'tuned'.* was trained|the data holds pictures"),
        ({"model": "tuned", "train_data": "short"}, SettingsError, "24"),
        ({"train_data": "nothing"}, Exception, "There is no dataset named 'nothing'"),
        ({"eval_data": "short"}, DataError, "of one length, and those here are not: 'short' of 2 numbers, 'few' of 24"),
        ({"eval_data": "drawings"}, DataError, "'few' holds pairs of embeddings"),
        ({"retention_data": "questions"}, DataError, "'questions' holds pairs of texts and 'few' holds pairs of embeddings"),
        ({"callbacks": [{"query_data": "short"}]}, DataError, "those here are not: 'few' of 24 numbers, 'short' of 2"),
        ({"augmentation": "light"}, SettingsError, "augmentation = 'light' changes pictures"),
        ({"lock_image": True}, SettingsError, "nothing would be left to train"),
        ({"word_dropout": 0.1}, SettingsError, r"word_dropout = 0\.1 changes captions"),
        ({"model_options": {"image_size": 64}}, SettingsError, "image_size = 64 is of models of pictures or texts"),
        ({"model_options": {"pooler": "gem"}}, SettingsError, "pooler = 'gem' is of models"),
        ({"model_options": {"context_length": 8}}, SettingsError, "context_length = 8 is of models"),
        ({"model_options": {"gradient_checkpointing": True}}, SettingsError, "gradient_checkpointing = True is of models"),
        ({"model_options": {"input_dim": 3}}, SettingsError, "input_dim = 3: the embeddings of 'few' have 24 numbers"),
        ({"model_options": {"matryoshka_dims": [24]}}, SettingsError, "24 is not below 24"),
        ({"model": "tuned", "model_options": {"hidden_sizes": [8]}}, SettingsError, r"hidden_sizes = \[8\]: the model was"),
        ({"model_options": {"hidden_sizes": [], "dropout": 0.1}}, SettingsError, r"dropout = 0\.1: it is for hidden units"),
        (
            {"model": "tuned", "model_options": {"output_dim": 8}},
            SettingsError,
            "output_dim = 8: the model was trained with",
        ),
        ({"model": "mlp#weights"}, ModelError, "'mlp#weights': an `mlp` comes without weights"),
        (
            {"callbacks": [{"kind": "early_stopping", "monitor": "picture_to_match_mrr"}]},
            SettingsError,
            "begin with match_to_embedding and embedding_to_match",
        ),
    ],
)
def test_what_does_not_go_with_embeddings_is_refused(
    tuned: RunFolder, changes: dict[str, object], error: type[Exception], said: str
) -> None:
    settings = {**QUICK, "model": "mlp", **FEW, **changes}
    if settings.get("eval_data"):
        del settings["eval_split"]

    with pytest.raises(error, match=said):
        validate(FinetuningRun(name="refused", settings=settings))


@pytest.mark.parametrize("name", ["input_dim", "hidden_sizes", "dropout"])
def test_options_of_an_mlp_are_refused_with_other_models(tuned: RunFolder, name: str) -> None:
    value = {"input_dim": 24, "hidden_sizes": [8], "dropout": 0.1}[name]
    settings = {**QUICK, "model": "starter", "train_data": "drawings", "model_options": {name: value}}
    with pytest.raises(SettingsError, match=rf"model_options\.{name} = .* is of an `mlp` alone"):
        validate(FinetuningRun(name="refused", settings=settings))


def test_a_model_that_was_not_trained_can_be_measured(tuned: RunFolder) -> None:
    RunFolder.create(FinetuningRun(name="given", settings={"model": "mlp", "eval_data": "few", "devices": "cpu"}))
    for stage in ("validate", "evaluate"):
        run_stage(stage, "given")

    assert 0 < mean_recall(RunFolder.open("given").load().evaluation.after) < 1
    settings = {"model": "starter", "eval_data": "few", "devices": "cpu"}
    with pytest.raises(SettingsError, match="Train an `mlp` on them"):
        validate(FinetuningRun(name="refused", settings=settings))
    with pytest.raises(SettingsError, match="'mlp' takes embeddings that another model made, and the data holds pictures"):
        validate(FinetuningRun(name="refused", settings={**settings, "model": "mlp", "eval_data": "drawings"}))


def test_what_it_takes_is_known_before_it_is_validated(tuned: RunFolder) -> None:
    new = FinetuningRun(name="new", settings={"model": "mlp", "train_data": "sounds"})
    counts = counts_of(check_settings(new.settings))

    assert counts is not None
    assert counts.weights == sum(value.nbytes for value in load_file(tuned.chosen_weights).values())
    assert counts.trainable == counts.weights
    assert counts.pixels == 4 * DIMENSION
    assert disk_needed(new, counts) > counts.weights
    check_fits(new)
    assert counts_of(check_settings({"model": "mlp", "train_data": "drawings"})) is None  # validation says why


SAID = {"input_dim": 3, "hidden_sizes": [4], "output_dim": 2, "dropout": 0.0, "logit_scale": 2.0, "matryoshka_dims": []}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_dim": 0}, "input_dim: Input should be greater than or equal to 1"),
        ({"input_dim": "3"}, "input_dim: Input should be a valid integer"),
        ({"hidden_sizes": [4] * 17}, "hidden_sizes: List should have at most 16 items"),
        ({"hidden_sizes": [65_536, 65_536]}, "it describes 4e.09 weights; at most 1e.09"),
        ({"dropout": 1}, "dropout: Input should be less than 1"),
        ({"logit_scale": 99}, "logit_scale: Input should be less than or equal to 10"),
        ({"matryoshka_dims": [2]}, r"matryoshka_dims = \[2\] are no lengths, 32 at most, below 2"),
        ({"auto_map": "x.py"}, "auto_map: Extra inputs are not permitted"),
        ({"a": "b" * 1_000_000}, "more than 1,000,000 bytes"),
        ({}, "there is no model.safetensors beside it"),
    ],
)
def test_folders_that_anyone_may_have_written_are_checked(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({**SAID, **changes}))
    with pytest.raises(ModelError, match=said):
        load_clip(str(tmp_path))


def test_weights_that_do_not_fit_are_refused(tuned: RunFolder, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(SAID))
    (tmp_path / "model.safetensors").write_bytes((tuned.artifact / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"(?s)could not be loaded: .*size mismatch for proj\.weight"):
        load_clip(str(tmp_path))
    (tmp_path / CONFIG).write_text("[")
    with pytest.raises(ModelError, match="is no JSON: Expecting value"):
        load_clip(str(tmp_path))


def test_a_model_without_data_says_what_is_missing() -> None:
    with pytest.raises(SettingsError, match="Name data with embeddings"):
        load_clip("mlp")
    with pytest.raises(ModelError, match="embeds given embeddings and no texts"):
        load_clip("mlp", options=ModelOptions(input_dim=3)).encode_texts(["a bell"])


def test_the_card_of_a_linear_map_opens_it_too(tuned: RunFolder, tmp_path: Path) -> None:
    clip = load_clip("mlp#scratch", options=ModelOptions(input_dim=DIMENSION, hidden_sizes=(), output_dim=5))
    clip.save_folder(tmp_path, torch.float16)
    [code] = re.findall(r"```python\n(.*?)```", model_card(tuned.load(), clip.config), re.DOTALL)
    names: dict[str, object] = {}
    exec(code.replace("PATH_OF_THIS_FOLDER", str(tmp_path)), names)

    given = vectors(20)[:, 0]
    found = names["tuned"](torch.from_numpy(given))  # type: ignore[operator]
    np.testing.assert_allclose(found.numpy(), load_folder(tmp_path).encode_images(given), atol=1e-6)
