import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attune.errors import ModelError, SearchError, SettingsError
from attune.models.clip import load_clip
from attune.runs.folder import RunFolder
from attune.schemas import FinetuningRun, SearchDocument
from attune.search.encoder import embed, load_encoder


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 48), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_embeds_each_document_by_its_picture_or_else_its_text(tiny_model: Path) -> None:
    encoder, clip = load_encoder(str(tiny_model)), load_clip(str(tiny_model))
    documents = [
        SearchDocument(key="text", text="a red square"),
        SearchDocument(key="both", text="a red square", image=png("red")),
        SearchDocument(key="blue", image=png("blue")),
    ]

    embed(encoder, documents)

    red = np.asarray(clip.resize(Image.new("RGB", (40, 48), "red"))).transpose(2, 0, 1)[None]
    assert documents[0].embedding == pytest.approx(clip.encode_texts(["a red square"])[0].tolist(), abs=1e-5)
    assert documents[1].embedding == pytest.approx(clip.encode_images(red)[0].tolist(), abs=1e-5)
    assert documents[2].embedding != pytest.approx(documents[1].embedding, abs=1e-3)
    assert [np.linalg.norm(document.embedding) for document in documents] == pytest.approx([1, 1, 1], abs=1e-5)
    assert {document.model for document in documents} == {encoder.fingerprint}


def test_names_every_bad_document_and_embeds_none(tiny_model: Path) -> None:
    documents = [
        SearchDocument(key="good", text="a cat"),
        SearchDocument(key="empty", text="  "),
        SearchDocument(key="broken", image=b"\x89PNG cut short"),
        SearchDocument(),
    ]

    with pytest.raises(SearchError) as caught:
        embed(load_encoder(str(tiny_model)), documents)

    message = str(caught.value)
    assert "3 of 4 documents cannot be embedded, so none of them was" in message
    assert "document 2, key 'empty': it has neither text nor image" in message
    assert "document 3, key 'broken': its picture cannot be used: it cannot be decoded" in message
    assert "document 4: it has neither" in message
    assert all(document.embedding == [] for document in documents)


def test_shortens_a_long_list_of_bad_documents(tiny_model: Path) -> None:
    with pytest.raises(SearchError, match="and 15 more"):
        embed(load_encoder(str(tiny_model)), [SearchDocument(key=str(number)) for number in range(25)])


@pytest.mark.parametrize(
    ("towers", "kept", "missing"),
    [
        ("text", SearchDocument(text="a cat"), SearchDocument(image=png("red"))),
        ("image", SearchDocument(image=png("red")), SearchDocument(text="a cat")),
    ],
    ids=["text", "image"],
)
def test_one_tower_embeds_its_own_and_refuses_the_other(
    tiny_model: Path, towers: str, kept: SearchDocument, missing: SearchDocument
) -> None:
    whole, half = load_encoder(str(tiny_model)), load_encoder(str(tiny_model), towers=towers)
    other = kept.model_copy(deep=True)

    embed(half, [kept])
    embed(whole, [other])

    assert kept.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert kept.model == other.model
    assert len(half.clip.model.state_dict()) < len(whole.clip.model.state_dict())
    with pytest.raises(SearchError, match=f"started with towers: {towers}. Start it with both"):
        embed(half, [missing])


def test_models_with_other_weights_have_other_fingerprints(tiny_model: Path, tmp_path: Path) -> None:
    load_clip(f"{tiny_model}#scratch", seed=1).save_folder(tmp_path)

    assert load_encoder(str(tmp_path)).fingerprint != load_encoder(str(tiny_model)).fingerprint


def test_a_run_is_loaded_by_its_name(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTUNE_HOME", str(tmp_path))
    run = RunFolder.create(FinetuningRun(name="my-run"))
    with pytest.raises(SearchError, match="'my-run' has no artifact: it is in state CREATED"):
        load_encoder("my-run")

    load_clip(str(tiny_model)).save_folder(run.artifact)

    assert load_encoder("my-run").fingerprint == load_encoder(str(tiny_model)).fingerprint
    with pytest.raises(ModelError, match=r"no model named 'my-rum'(.|\n)*Runs: my-run"):
        load_encoder("my-rum")


def test_refuses_an_unknown_tower(tiny_model: Path) -> None:
    with pytest.raises(SettingsError, match="towers = 'audio': choose one of both, text, image"):
        load_encoder(str(tiny_model), towers="audio")


def test_gives_the_first_numbers_of_an_embedding_if_the_model_was_trained_for_that(tiny_model: Path, tmp_path: Path) -> None:
    clip = load_clip(str(tiny_model))
    clip.matryoshka_dims = (8, 16)
    clip.save_folder(tmp_path)
    whole, short, same = (load_encoder(str(tmp_path), dim=dim) for dim in (0, 8, 32))
    one, other = ([SearchDocument(text="a red square"), SearchDocument(image=png("red"))] for _ in range(2))

    embed(whole, one)
    embed(short, other)

    for long, first in zip(one, other, strict=True):
        head = np.asarray(long.embedding)[:8]
        assert first.embedding == pytest.approx((head / np.linalg.norm(head)).tolist(), abs=1e-6)
    assert whole.fingerprint == same.fingerprint == load_encoder(str(tiny_model)).fingerprint
    assert short.fingerprint != whole.fingerprint  # an index holds embeddings of one length
    with pytest.raises(SettingsError, match="32 numbers, and were trained to be shortened to 8, 16. Choose one of these"):
        load_encoder(str(tmp_path), dim=12)
    with pytest.raises(SettingsError, match=r"dim = 8: .* were not trained to be shortened. Leave dim out"):
        load_encoder(str(tiny_model), dim=8)
