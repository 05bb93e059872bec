"""Runs with text encoders of transformers: trained, measured, exported, gone on from, and searched."""

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from attune.config import check_settings
from attune.errors import SearchError, SettingsError, TrainingStopped
from attune.models.clip import load_clip, load_folder
from attune.report.card import model_card
from attune.room import check_fits
from attune.room import count as counts_of
from attune.runs.folder import RunFolder
from attune.runs.models import ancestors, load_named
from attune.schemas import DatasetReport, FinetuningRun, SearchDocument, TrainingExample
from attune.search.encoder import embed, load_encoder
from attune.search.index import Index
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from attune.validation import validate
from client.search import search_documents
from tests.attune.sentences import save_plain, save_sentence
from tests.attune.test_training import assert_equal, checkpoint, weights
from tests.attune.texts import questions
from tests.attune.trained import QUICK, start, validations
from tests.conftest import picture

Push = Callable[..., DatasetReport]
Make = Callable[..., list[TrainingExample]]

LEARNT = {"train_data": "questions", "epochs": 8, "learning_rate": 3e-3, "eval_split": 0.25}
FEW = {"train_data": "few", "epochs": 2, "batch_size": 8}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence(tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, bert: Path, make_examples: Make, push: Push) -> RunFolder:
    """A run that went through all stages; its home has pairs of texts as `questions` and `few`, and pictures as `shapes`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTUNE_HOME", str(tmp_path_factory.mktemp("sentences")))
        push("questions", questions())
        push("few", questions(40, documents=1))
        push("shapes", make_examples(24))
        folder = start("sbert", bert, **LEARNT, model_options={"matryoshka_dims": [8]})
        for stage in ("train", "evaluate", "export"):
            run_stage(stage, "sbert")
        return folder


@pytest.fixture
def sbert(finished: RunFolder, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The run, in its home."""
    monkeypatch.setenv("ATTUNE_HOME", str(finished.path.parents[2]))
    return finished


def test_it_learns_and_is_measured_and_exported(sbert: RunFolder) -> None:
    (_, _, before), *_ = validations(sbert)
    run = sbert.load()

    assert run.state == "FINISHED"
    assert run.training.best_recall > before + 0.3
    assert run.evaluation.difference_low["query_to_document_recall@1"] > 0
    assert run.artifact.max_difference < 1e-6
    assert set(run.artifact.files) == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json"),
        *("sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json", "attune.json"),
        *("README.md", "settings.json", "metrics.json", "manifest.json"),
    }
    manifest = json.loads((sbert.artifact / "manifest.json").read_text())
    assert set(manifest["files"]) == set(run.artifact.files) - {"manifest.json"}


def test_what_was_trained_is_in_the_artifact_to_the_last_bit(sbert: RunFolder) -> None:
    chosen, artifact = load_file(sbert.chosen_weights), load_clip(str(sbert.artifact))

    assert_equal(dict(artifact.model.state_dict()), chosen)
    assert artifact.matryoshka_dims == (8,)
    assert chosen["logit_scale"] != load_file(sbert.start_weights)["logit_scale"]
    own = "text.transformer.pooler.dense.weight"
    assert torch.equal(chosen[own], load_file(sbert.start_weights)[own])


def test_sentence_transformers_opens_the_artifact(sbert: RunFolder) -> None:
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(sbert.artifact), device="cpu")
    texts = [example.text for example in questions(30)]
    np.testing.assert_allclose(theirs.encode(texts), load_folder(sbert.artifact).encode_texts(texts), atol=1e-6)


def test_the_card_says_how_to_open_it(sbert: RunFolder, bert: Path) -> None:
    card = (sbert.artifact / "README.md").read_text()
    data = ModelCard(card).data

    assert 'SentenceTransformer("PATH_OF_THIS_FOLDER")' in card
    assert "open_clip" not in card
    assert "The first 8 numbers" in card
    assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    assert data.tags == ["sentence-transformers", "attune"]
    other = model_card(sbert.load(), {"library": "sentence_transformers", "pooler": "gem"})
    assert "generalised mean (GeM), which sentence-transformers does not have" in other
    assert "library_name" not in other


def test_a_run_goes_on_from_another_with_its_optimizer(sbert: RunFolder) -> None:
    more = {key: value for key, value in LEARNT.items() if key != "epochs"}
    further = {"model_artifact": "sbert", "continue_optimizer": True, "epochs": 1}
    chooser = {"kind": "best_model_checkpoint", "monitor": "val_loss"}  # recall is perfect already
    RunFolder.create(FinetuningRun(name="further", settings={**QUICK, **more, **further, "callbacks": [chooser]}))
    for stage in ("validate", "train", "evaluate", "export"):
        run_stage(stage, "further")
    folder = RunFolder.open("further")

    assert_equal(weights(folder, "start"), weights(sbert, "chosen"))
    assert [one.path.name for one in ancestors("further")] == ["further", "sbert"]
    assert folder.load().settings["model_artifact"] == sbert.reference
    assert load_clip(str(folder.artifact)).matryoshka_dims == ()


def test_a_copy_of_the_artifact_is_known_by_its_weights(sbert: RunFolder, tmp_path: Path) -> None:
    for path in (path for path in sbert.artifact.rglob("*") if path.is_file()):
        target = tmp_path / "copy" / path.relative_to(sbert.artifact)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())

    assert [folder.reference for folder in ancestors(str(tmp_path / "copy"))] == [sbert.reference]


def test_a_resumed_training_ends_at_the_weights_of_an_unbroken_one(sbert: RunFolder, bert: Path) -> None:
    unbroken, broken = (start(name, bert, **FEW) for name in ("sentence-unbroken", "sentence-broken"))
    run_stage("train", unbroken.reference)
    asked = count(1)
    with pytest.raises(TrainingStopped):
        fit(prepare(broken, check_settings(broken.load().settings), stop=lambda: next(asked) == 6))
    assert (broken.checkpoints / "within.pt").exists()

    run_stage("train", broken.reference)

    for name in ("best", "chosen"):
        assert_equal(weights(broken, name), weights(unbroken, name))
    assert_equal(checkpoint(broken), checkpoint(unbroken))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("scratch", {}),
        ("lora", {"lora_rank": 4}),
        ("blocks", {"train_last_blocks": 1, "layer_wise_lr_decay": 0.5}),
        (
            "shapes",
            {"model_options": {"pooler": "gem", "output_dim": 16, "context_length": 12, "gradient_checkpointing": True}},
        ),
        ("half", {"artifact_precision": "fp16", "precision": "bf16", "micro_batch_size": 3, "ema_decay": 0.5}),
    ],
)
def test_ways_to_train(sbert: RunFolder, bert: Path, name: str, changes: dict[str, object]) -> None:
    model = f"{bert}#scratch" if name == "scratch" else str(bert)
    folder = start(f"sentence-{name}", model, **{**FEW, "epochs": 1, "learning_rate": 1e-3}, **changes)
    for stage in ("train", "evaluate", "export"):
        run_stage(stage, folder.reference)

    first, best = weights(folder, "start"), weights(folder, "best")
    moved = {key for key in first if not torch.equal(first[key], best[key])}
    if moved:  # the start may be best
        assert "text.transformer.encoder.layer.1.output.dense.weight" in moved
        assert ("text.transformer.embeddings.word_embeddings.weight" in moved) == (name not in ("lora", "blocks"))
    assert folder.load().artifact.max_difference < 1e-4
    options = folder.load().settings["model_options"]
    assert load_folder(folder.artifact).config["embed_dim"] == (options["output_dim"] or 32)


def test_a_plain_encoder_is_trained_and_compared_with_a_clip(sbert: RunFolder, tiny_vit: Path, tmp_path: Path) -> None:
    plain = save_plain(tmp_path / "plain")
    settings = {"model": str(plain), "eval_data": "few", "baseline": str(tiny_vit), "devices": "cpu"}
    RunFolder.create(FinetuningRun(name="beside", settings=settings))
    run_stage("validate", "beside")

    run = run_stage("evaluate", "beside")

    assert run.evaluation.texts == 40
    assert run.evaluation.before != run.evaluation.after


@pytest.mark.parametrize(
    "settings",
    [
        {"train_data": "shapes"},
        {"eval_data": "shapes", "train_data": None},
        {"eval_data": "shapes", "train_data": None, "model": "starter", "baseline": "bert"},
    ],
)
def test_pictures_are_refused(sbert: RunFolder, bert: Path, settings: dict[str, object]) -> None:
    named = {key: str(bert) if value == "bert" else value for key, value in settings.items()}
    quick = QUICK if named["train_data"] else {"devices": "cpu"}
    run = FinetuningRun(name="refused", settings={**quick, "model": str(bert), **named})
    with pytest.raises(SettingsError, match=r"bert' embeds texts alone, and the data holds pictures with captions\. Choose"):
        validate(run)


def test_settings_that_such_a_model_cannot_have_are_refused_by_validation(sbert: RunFolder, bert: Path) -> None:
    run = FinetuningRun(settings={**QUICK, "model": str(bert), **FEW, "model_options": {"context_length": 100}})
    with pytest.raises(SettingsError, match="has places for 48 tokens"):
        validate(run)


def test_what_it_takes_is_known_from_its_configuration(sbert: RunFolder, bert: Path) -> None:
    whole, little = (counts_of(check_settings({"model": str(bert), **FEW, **more})) for more in ({}, {"lora_rank": 2}))
    of_pictures = counts_of(check_settings({"model": str(bert), "train_data": "shapes", "train_last_blocks": 1}))

    assert whole is not None
    assert little is not None
    assert of_pictures is not None  # what is wrong with it, validation says
    state = load_clip(str(bert)).model.state_dict()
    own = sum(value.nbytes for name, value in state.items() if "pooler" in name)
    assert whole.weights == sum(value.nbytes for value in state.values())
    assert whole.trainable == whole.weights - own
    assert whole.pixels == 0
    assert little.trainable < whole.trainable / 4
    check_fits(sbert.load())
    [line] = [event.message for event in sbert.events() if event.message.startswith("about ")]
    assert " steps, " in line


def test_texts_are_searched_and_pictures_refused(sbert: RunFolder) -> None:
    examples = questions(60)
    documents = list(search_documents(examples))
    encoder, index = load_encoder("sbert", dim=8), Index("answers")
    embed(encoder, documents)
    index.upsert(documents)
    asked = [SearchDocument(text=example.text) for example in examples]
    embed(encoder, asked)

    found = index.search(asked, 2)

    right = [any(match.text in one.captions for match in hits) for hits, one in zip(found, examples, strict=True)]
    assert len(documents[0].embedding) == 8
    assert np.mean(right) > 0.3  # by chance one in thirty
    with pytest.raises(SearchError, match="document 1: it has a picture, but the model embeds texts alone"):
        embed(encoder, [SearchDocument(image=picture("red"))])
    with pytest.raises(SettingsError, match="towers = 'image': .* embeds texts alone"):
        load_encoder("sbert", towers="image")
    assert load_encoder("sbert", towers="text").clip.encode_texts(["a"]).shape == (1, 32)
    assert load_named("sbert").name == "sbert"
