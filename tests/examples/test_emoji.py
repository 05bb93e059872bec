"""The data and the model that ship with the repository are what their documents say."""

import json
from pathlib import Path

import numpy as np
import pytest

from attune.data.images import decode
from attune.data.pixels import to_pixels
from attune.evaluation.ranking import ranks
from attune.metrics import retrieval_metrics
from attune.models.clip import load_clip
from attune.models.source import STARTER
from examples.emoji.data import FOLDER, HELD_OUT, load, split
from examples.starter.card import starter_card

STYLES = ("twemoji", "openmoji", "noto")


def test_data_and_weights_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.parquet")) < 10_000_000
    assert sum(path.stat().st_size for path in STARTER.rglob("*.safetensors")) < 12_000_000


@pytest.mark.parametrize("style", STYLES)
def test_every_emoji_is_a_64_pixel_picture_with_captions(style: str) -> None:
    examples = load(style)
    assert len(examples) == 1905
    assert {decode(example.image).size for example in examples} == {(64, 64)}
    assert all(example.captions and example.group for example in examples)


def test_held_out_emoji_are_400_pictures_of_concepts_not_trained_on() -> None:
    train, test = split(load("noto"))
    assert len({example.image for example in test}) == HELD_OUT
    assert not {example.group for example in train} & {example.group for example in test}
    assert len(train) + len(test) == 1905


def test_held_out_concepts_are_the_same_in_every_style() -> None:
    held_out = [{example.group for example in split(load(style))[1]} for style in STYLES]
    assert len(held_out[0] & held_out[2]) > 0.9 * len(held_out[2])


def test_starter_is_as_good_on_noto_as_its_card_says() -> None:
    record = json.loads((STARTER / "training.json").read_text())
    clip = load_clip("starter")
    captions: dict[bytes, list[str]] = {}
    for example in split(load("noto"))[1]:
        known = captions.setdefault(example.image, [])
        known += [text for text in example.captions if text not in known]
    images = clip.encode_images(np.stack([to_pixels(decode(image), clip.resize) for image in captions]))
    texts = clip.encode_texts([text for found in captions.values() for text in found])
    owner = np.repeat(np.arange(len(captions)), [len(found) for found in captions.values()])
    figures = retrieval_metrics(ranks(images, texts, owner))
    assert figures == pytest.approx(record["zero_shot_noto"], abs=5e-3)  # a rank or two may turn on another processor
    assert (STARTER / "README.md").read_text() == starter_card(record)


def test_parquet_says_it_holds_pictures_to_hugging_face_datasets() -> None:
    import pyarrow.parquet as pq

    for style in STYLES:
        metadata = pq.read_schema(Path(FOLDER) / f"{style}.parquet").metadata
        assert json.loads(metadata[b"huggingface"])["info"]["features"]["image"] == {"_type": "Image"}
