import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from attune.data.images import decode
from attune.data.pixels import open_pixels, to_pixels
from attune.data.store import iter_images
from attune.errors import ModelError
from attune.models.architecture import CONFIG
from attune.models.clip import config_of, load_clip, load_folder
from attune.models.open_clip_files import WEIGHTS
from attune.models.source import ModelSource, find_model
from attune.models.weights import save_weights
from attune.schemas import DatasetReport, TrainingExample
from tests.conftest import TINY_CONFIG, picture

Make = Callable[..., list[TrainingExample]]
Push = Callable[..., DatasetReport]
TEXTS = ["a red circle", "a blue square", "x"]


def pixels(count: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def test_takes_names_apart(tiny_model: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"")

    assert find_model("ViT-B-32#openai") == ModelSource("ViT-B-32", weights="openai")
    assert find_model("ViT-B/32#scratch") == ModelSource("ViT-B-32", scratch=True)
    assert find_model(f"ViT-B-32#{weights}") == ModelSource("ViT-B-32", weights=str(weights))
    assert find_model(str(tiny_model)) == ModelSource(folder=tiny_model)
    assert find_model(f"{tiny_model}#scratch") == ModelSource(folder=tiny_model, scratch=True)
    assert find_model(str(tiny_model)).open_clip_name == f"local-dir:{tiny_model}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ViT-B-33#openai", r"There is no model named 'ViT-B-33'\. Did you mean ViT-B-32"),
        ("nonsense", r"There is no model named 'nonsense'.*Known: `starter`"),
        ("ViT-B-32", r"'ViT-B-32' does not say which weights\. Write ViT-B-32#TAG with one of: openai, .*scratch"),
        ("ViT-B-32#opanai", r"'ViT-B-32' has no weights 'opanai', and no such file exists\. Tags: openai, .*scratch"),
        ("/not/a/folder#scratch", r"named '/not/a/folder': no such folder is on the service's machine\. Copy it there$"),
        ("../folder", r"named '\.\./folder': no such folder"),
        ("folder\\model", r"no such folder"),
        ("one/two/three", r"no such folder"),
    ],
)
def test_an_unknown_model_is_answered_with_what_there_is(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        find_model(name)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("vit-b-32", "ViT-B-32?"),
        ("vitb32", "ViT-B-32?"),
        ("resnet18", "timm/resnet18.a1_in1k?"),
        ("resnet50.a1_in1k", "timm/resnet50.a1_in1k?"),
        ("resnet34", "timm/resnet34?"),
        ("timm/ResNet18", "timm/resnet18?"),
        ("timm/resnet50.A1_in1k", "timm/resnet50.a1_in1k?"),
        ("bert-base", "bert-base-en or bert-base-multi or bert-base-cased?"),
        ("efficientnet-b0", "timm/efficientnet_b0.ra_in1k?"),
        ("MLP", "mlp?"),
        ("Starter", "starter?"),
        ("clip-base", "clip-base-en or clip-base-multi or "),
        ("MiniLM", "sentence-transformers/all-MiniLM-L6-v2 or "),
        ("strater", "starter"),
    ],
)
def test_the_nearest_name_is_offered_first(name: str, first: str) -> None:
    with pytest.raises(ModelError, match=rf"Did you mean {re.escape(first)}"):
        find_model(name)


@pytest.mark.parametrize("name", ["nonsense", "zz", "-", "x" * 10_000])
def test_where_no_name_is_near_none_is_offered(name: str) -> None:
    with pytest.raises(ModelError) as refused:
        find_model(name)
    assert "Did you mean" not in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"has no open_clip_config\.json"):
        find_model(str(tmp_path))
    with pytest.raises(ModelError, match="a folder holds its own weights"):
        find_model(f"{tiny_model}#openai")


@pytest.mark.parametrize("broken", ["missing", "cut short", "of another model"])
def test_a_folder_whose_weights_do_not_fit_is_refused(tmp_path: Path, tiny_model: Path, broken: str) -> None:
    config = json.loads(json.dumps(TINY_CONFIG))
    if broken == "of another model":
        config["model_cfg"]["embed_dim"] = 16
    (tmp_path / CONFIG).write_text(json.dumps(config))
    if broken != "missing":
        data = (tiny_model / WEIGHTS).read_bytes()
        (tmp_path / WEIGHTS).write_bytes(data[:1000] if broken == "cut short" else data)

    with pytest.raises(ModelError, match=r"could not be loaded") as refused:
        load_clip(str(tmp_path))
    assert str(refused.value).endswith(". Look whether its files are all there, whole, and of one model, and copy them anew")
    assert ".." not in str(refused.value)


def test_random_weights_follow_from_the_seed_alone(tiny_model: Path) -> None:
    name = f"{tiny_model}#scratch"
    torch.manual_seed(99)
    first = load_clip(name, seed=1).encode_texts(TEXTS)
    torch.rand(7)

    assert np.array_equal(load_clip(name, seed=1).encode_texts(TEXTS), first)
    assert not np.allclose(load_clip(name, seed=2).encode_texts(TEXTS), first, atol=1e-3)
    assert not np.allclose(load_clip(str(tiny_model), seed=1).encode_texts(TEXTS), first, atol=1e-3)


def test_weights_of_openai_keep_the_activation_they_were_trained_with() -> None:
    assert config_of(find_model("ViT-B-32#openai"))["quick_gelu"] is True
    assert not config_of(find_model("ViT-B-32#laion2b_s34b_b79k")).get("quick_gelu", False)


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(tiny_model: Path) -> None:
    clip = load_clip(str(tiny_model))
    clip.model.train()

    images, texts = clip.encode_images(pixels(9)), clip.encode_texts(TEXTS)

    assert (images.shape, texts.shape, images.dtype) == ((9, 32), (3, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([images, texts]), axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(clip.encode_images(pixels(9), batch_size=4), images, atol=1e-6)
    np.testing.assert_allclose(clip.encode_texts(TEXTS, batch_size=1), texts, atol=1e-6)
    assert clip.model.training  # put back as it was


def test_a_saved_folder_gives_bit_equal_embeddings(tiny_model: Path, tmp_path: Path) -> None:
    clip = load_clip(f"{tiny_model}#scratch", seed=5)

    clip.save_folder(tmp_path / "saved")
    again = load_folder(tmp_path / "saved")

    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [CONFIG, WEIGHTS]
    assert np.array_equal(again.encode_images(pixels()), clip.encode_images(pixels()))
    assert np.array_equal(again.encode_texts(TEXTS), clip.encode_texts(TEXTS))
    assert (again.config, again.preprocess) == (clip.config, clip.preprocess)


def test_a_folder_in_fp16_is_half_the_size_and_nearly_the_same(tiny_model: Path, tmp_path: Path) -> None:
    clip = load_clip(str(tiny_model))

    clip.save_folder(tmp_path / "half", torch.float16)
    again = load_folder(tmp_path / "half")

    sizes = [(folder / WEIGHTS).stat().st_size for folder in (tiny_model, tmp_path / "half")]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)
    assert next(again.model.parameters()).dtype == torch.float32
    np.testing.assert_allclose(again.encode_images(pixels()), clip.encode_images(pixels()), atol=5e-3)
    assert not np.array_equal(again.encode_images(pixels()), clip.encode_images(pixels()))


def test_weights_of_a_run_load_into_a_model_of_another_seed(tiny_model: Path, tmp_path: Path) -> None:
    one, other = (load_clip(f"{tiny_model}#scratch", seed=seed) for seed in (1, 2))
    one.save_weights(tmp_path / "weights.safetensors")

    other.load_weights(tmp_path / "weights.safetensors")

    assert np.array_equal(other.encode_images(pixels()), one.encode_images(pixels()))


PICTURES = {
    "wide": picture("red", "square", size=(80, 41)),
    "tall": picture("blue", "cross", size=(33, 97)),
    "small": picture("green", "triangle", "black", size=(20, 20)),
    "jpeg": picture("purple", "circle", size=(64, 50), kind="JPEG"),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES.keys())
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_exactly_those_of_open_clips_own_preprocessing(
    tiny_model: Path, tmp_path: Path, data: bytes, resize_mode: str, interpolation: str
) -> None:
    config = json.loads(json.dumps(TINY_CONFIG))
    config["preprocess_cfg"] |= {
        "resize_mode": resize_mode,
        "interpolation": interpolation,
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    }
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / WEIGHTS).symlink_to(tiny_model / WEIGHTS)
    clip = load_clip(str(tmp_path))
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")

    ours = clip.normalise(torch.from_numpy(to_pixels(decode(data), clip.resize)[None].copy()))

    assert ours.shape == (1, 3, 32, 32)
    assert torch.equal(ours[0], preprocess(decode(data)))


def test_the_pixel_cache_holds_every_picture_once_and_is_made_once(
    attune_home: Path, tiny_model: Path, make_examples: Make, push: Push
) -> None:
    clip = load_clip(str(tiny_model))
    examples = make_examples(30)
    report = push("shapes", [*examples, *make_examples(3, captions=1)], batch_size=7)
    made: list[int] = []

    def counting(image: object) -> object:
        made.append(1)
        return clip.resize(image)

    for _ in range(3):
        cache = open_pixels(report.fingerprint, clip.preprocess, counting)

    assert len(made) == 33  # the rows of the first build; 30 pictures
    assert cache.pixels.shape == (30, 3, 32, 32)
    assert isinstance(cache.pixels, np.memmap)
    for batch in iter_images(report.fingerprint):
        for digest, data in batch:
            assert np.array_equal(cache.pixels[cache.rows([digest])[0]], to_pixels(decode(data), clip.resize))


def test_another_size_gets_a_cache_of_its_own(attune_home: Path, tiny_model: Path, make_examples: Make, push: Push) -> None:
    clip = load_clip(str(tiny_model))
    fingerprint = push("shapes", make_examples(4)).fingerprint
    open_pixels(fingerprint, clip.preprocess, clip.resize)
    clip.preprocess = {**clip.preprocess, "size": 16}
    del clip.resize

    assert open_pixels(fingerprint, clip.preprocess, clip.resize).pixels.shape == (4, 3, 16, 16)


def test_texts_of_equal_tokens_have_equal_embeddings(tiny_model: Path) -> None:
    clip = load_clip(str(tiny_model))
    long = "a very long text of many different words about nothing at all"
    found = clip.encode_texts(["A Red Cat", "a dog", "a  red cat", long, "a red cat"], batch_size=2)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[0], found[4])
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_weights_that_share_their_memory_are_written_apart(tmp_path: Path) -> None:
    table = torch.arange(12.0).reshape(3, 4)
    state = {"table": table, "same": table, "row": table[1], "turned": table.T, "count": torch.tensor(3)}

    save_weights(tmp_path / "some.safetensors", state)

    found = load_file(tmp_path / "some.safetensors")
    assert list(found) == sorted(state)
    assert all(torch.equal(value, found[name]) for name, value in state.items())
