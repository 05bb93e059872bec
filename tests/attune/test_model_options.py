"""Models with another shape than they come with: what the weights become, and that open_clip opens them by itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from attune.config import check_settings
from attune.errors import ModelError, SettingsError, TrainingStopped
from attune.losses.batch import EmbeddedBatch
from attune.losses.contrastive import clip_loss
from attune.losses.make import Scope, make_loss
from attune.losses.matryoshka import MatryoshkaLoss
from attune.metrics import DIRECTIONS
from attune.models.architecture import CONFIG
from attune.models.checkpointing import checkpoint_gradients
from attune.models.clip import Clip, config_of, load_clip, load_folder
from attune.models.lora import add_lora
from attune.models.open_clip_options import with_options
from attune.models.options import check_options
from attune.models.shell import build
from attune.models.source import find_model
from attune.models.trainable import train_mode
from attune.room import count
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport
from attune.settings import ModelOptions
from attune.stages import STAGES, run_stage
from attune.training.estimate import activation_bytes
from attune.training.fit import fit
from attune.training.job import prepare
from attune.training.step import backward
from attune.training.towers import Towers
from tests.attune.trained import start
from tests.conftest import TINY_CONFIG

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
RESNET = {"image_size": 32, "width": 8, "head_width": 8, "layers": [1, 1, 1, 1], "patch_size": None}
TIMM = {"timm_model_name": "test_resnet", "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}
TIMM_VIT = {**TIMM, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "image_size": 224}
COCA = {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
SIGLIP = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
KINDS: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": VIT, "text_cfg": TEXT},
    "resnet": {"vision_cfg": RESNET, "text_cfg": TEXT},
    "timm": {"vision_cfg": {**TIMM, "image_size": 32}, "text_cfg": TEXT},
    "timm vit": {"vision_cfg": TIMM_VIT, "text_cfg": TEXT},
    "siglip": {"vision_cfg": VIT, "text_cfg": {**TEXT, **SIGLIP}, "custom_text": True, "init_logit_bias": -10},
    "coca": {
        "vision_cfg": COCA,
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {**TEXT, "attn_pooler_heads": 2},
        "custom_text": True,
    },
}
SIZES = {"timm vit": 384}
"""What each is given instead of its own size, if not 64."""

ROBERTA = {
    "model_type": "roberta",
    "vocab_size": 49408,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TEXTS = ["a red circle", "a blue square on a white ground", "x"]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function: the folder of a tiny model with random weights, by its name in `KINDS`."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            scratch, place = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("model") / "model"
            config = json.loads(json.dumps({**TINY_CONFIG, "model_cfg": {"embed_dim": 24, **KINDS[kind]}}))
            (scratch / CONFIG).write_text(json.dumps(config))
            load_clip(f"{scratch}#scratch", seed=1).save_folder(place)
            made[kind] = place
        return made[kind]

    return folder


def pixels(clip: Clip, count: int = 4) -> np.ndarray:
    size = clip.preprocess["size"]
    height, width = size if isinstance(size, list) else (size, size)
    return np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def embeddings(clip: Clip) -> np.ndarray:
    return np.concatenate([clip.encode_images(pixels(clip)), clip.encode_texts(TEXTS)])


@pytest.fixture
def hugging_face(tmp_path: Path) -> tuple[Any, dict[str, Any]]:
    """A model with a text tower of Hugging Face, and its configuration. No folder may name such a tower by a path."""
    (tmp_path / "config.json").write_text(json.dumps(ROBERTA))
    text = {"hf_model_name": str(tmp_path), "hf_model_pretrained": False, "hf_pooler_type": "mean_pooler"}
    config = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": {**text, "hf_proj_type": "linear", "context_length": 16}}
    torch.manual_seed(0)
    model = build(config)
    open_clip.set_model_preprocess_cfg(model, TINY_CONFIG["preprocess_cfg"])
    return model, config


def two_steps(clip: Clip) -> list[float]:
    """Trains on four pairs; the loss of each step. Every gradient is a number."""
    towers, images = Towers(clip, "fp32"), torch.from_numpy(pixels(clip, 3))
    tokens = clip.tokenizer(TEXTS)
    optimizer = torch.optim.AdamW([each for each in clip.model.parameters() if each.requires_grad], lr=1e-4)
    train_mode(clip.model)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = backward(
            towers.encode_images,
            towers.encode_texts,
            images,
            tokens,
            lambda one, other: clip_loss(EmbeddedBatch(one, other, clip.model.logit_scale.exp())),
            model=clip.model,
        )
        gradients = [each.grad for each in clip.model.parameters() if each.grad is not None]
        assert len(gradients) > 10
        assert all(gradient.isfinite().all() for gradient in gradients)
        optimizer.step()
        losses.append(loss.item())
    return losses


def opened_by_open_clip(folder: Path, given: np.ndarray) -> np.ndarray:
    """Embeddings as of `embeddings`, with nothing of Attune."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.no_grad():
        images = model.encode_image((torch.from_numpy(given).float() / 255 - 0.5) / 0.5, normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    return torch.cat([images, texts]).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_another_shape_trains_and_open_clip_opens_it_by_itself(
    folder_of: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    size, length = SIZES.get(kind, 64), 24
    clip = load_clip(str(folder_of(kind)), options=ModelOptions(image_size=size, context_length=length))

    assert len(set(two_steps(clip))) == 2
    clip.save_folder(tmp_path / "saved")

    given = pixels(clip)
    assert given.shape == (4, 3, size, size)
    assert clip.tokenizer(TEXTS).shape == (3, length)
    assert embeddings(clip).shape == (7, 24)
    np.testing.assert_allclose(opened_by_open_clip(tmp_path / "saved", given), embeddings(clip), atol=1e-6)
    again = load_folder(tmp_path / "saved")  # without the options
    assert np.array_equal(embeddings(again), embeddings(clip))
    assert (again.config, again.preprocess) == (clip.config, clip.preprocess)


def test_options_that_a_model_has_already_change_nothing(folder_of: Callable[[str], Path]) -> None:
    for kind in ("vit", "resnet", "timm"):
        own = ModelOptions(image_size=32, context_length=16, output_dim=24)
        one, other = (load_clip(str(folder_of(kind)), options=options) for options in (own, None))
        assert np.array_equal(embeddings(one), embeddings(other))
        assert (one.config, one.preprocess) == (other.config, other.preprocess)


def test_places_are_interpolated_as_open_clip_does_it(folder_of: Callable[[str], Path]) -> None:
    name = f"local-dir:{folder_of('vit')}"
    ours = load_clip(str(folder_of("vit")), options=ModelOptions(image_size=48)).model

    theirs = open_clip.create_model(name, force_image_size=48)

    assert ours.visual.positional_embedding.shape == (37, 32)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=0)


def test_places_of_a_resnets_pool_are_interpolated_beside_that_of_its_mean(folder_of: Callable[[str], Path]) -> None:
    old, new = (
        load_clip(str(folder_of("resnet")), options=ModelOptions(image_size=size)).model.visual.attnpool.positional_embedding
        for size in (32, 96)
    )

    assert (len(old), len(new)) == (2, 10)
    torch.testing.assert_close(new[:1], old[:1])
    torch.testing.assert_close(new[1:], old[1:].expand(9, -1))  # there was one place


@pytest.mark.parametrize("length", [10, 30])
@pytest.mark.parametrize("kind", ["vit", "coca"])
def test_a_causal_tower_of_another_length_embeds_short_texts_as_before(
    folder_of: Callable[[str], Path], kind: str, length: int
) -> None:
    before, after = (load_clip(str(folder_of(kind)), options=ModelOptions(context_length=size)) for size in (16, length))

    assert after.tokenizer(TEXTS).shape == (3, length)
    if kind == "vit":
        np.testing.assert_allclose(after.encode_texts(TEXTS), before.encode_texts(TEXTS), atol=1e-6)
    old, new = (
        clip.model.text.positional_embedding if kind == "coca" else clip.model.positional_embedding
        for clip in (before, after)
    )
    words = len(old) - (kind == "coca")  # the last place of the other is that of its class token
    kept = min(words, length)
    torch.testing.assert_close(new[:kept], old[:kept], rtol=0, atol=0)
    torch.testing.assert_close(new[kept:length], old[words - 1].expand(length - kept, -1), rtol=0, atol=0)
    torch.testing.assert_close(new[-1], old[-1] if kind == "coca" else new[length - 1], rtol=0, atol=0)


def test_a_tower_of_hugging_face_reads_as_many_tokens_as_it_has_places_for(hugging_face: tuple[Any, dict[str, Any]]) -> None:
    model, config = hugging_face
    model.eval()

    other, changed = with_options(model, config, ModelOptions(context_length=38, image_size=48, output_dim=8))

    assert (changed["text_cfg"]["context_length"], changed["vision_cfg"]["image_size"]) == (38, 48)
    tokens = torch.randint(2, 99, (2, 38))
    assert other.eval().encode_text(tokens).shape == (2, 8)
    assert other.encode_image(torch.zeros(2, 3, 48, 48)).shape == (2, 8)
    with pytest.raises(SettingsError, match="context_length = 39: the text tower roberta has places for 38 tokens"):
        with_options(model, config, ModelOptions(context_length=39))


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("vit", {"image_size": 36}, r"image_size = 36 is no multiple of 8, .* Nearest are 32 and 40"),
        ("resnet", {"image_size": 16}, r"image_size = 16 is no multiple of 32, .* Nearest are 32$"),
        ("timm vit", {"image_size": 256}, r"vit_tiny_patch16_224 is built for one size, .* known in: 224, 384$"),
        (
            "coca",
            {"output_dim": 8},
            r"output_dim = 8: the image tower does not end in a linear projection .*\(attentional_pool\)",
        ),
        ("vit", {"matryoshka_dims": [8, 24]}, r"matryoshka_dims: 24 is not below 24, the length of the model's embeddings"),
        ("vit", {"matryoshka_dims": [16], "output_dim": 12}, r"matryoshka_dims: 16 is not below 12"),
    ],
)
def test_what_a_model_cannot_have_is_refused_with_what_it_can(
    folder_of: Callable[[str], Path], kind: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        load_clip(str(folder_of(kind)), options=ModelOptions(**options))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("ViT-B-16-SigLIP#webli", {"output_dim": 64}, "the image tower does not end in a linear projection of its own"),
        ("roberta-ViT-B-32#laion2b_s12b_b32k", {"output_dim": 64}, r"the text tower does not end in .*\(mlp\)"),
        ("ViT-B-16-SigLIP#webli", {"image_size": 240}, "Choose one of those it is known in: 224, 256, 384, 512"),
        ("RN50#openai", {"image_size": 250}, "Nearest are 224 and 256"),
    ],
)
def test_models_by_name_are_refused_before_anything_is_fetched(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_options(config_of(find_model(name)), ModelOptions(**options))


def test_models_by_name_that_can(folder_of: Callable[[str], Path]) -> None:
    for name, options in {
        "ViT-B-16-SigLIP#webli": {"image_size": 384},
        "RN50#openai": {"image_size": 256, "output_dim": 64},
        "ViT-B-32#openai": {"image_size": 256, "output_dim": 1024, "context_length": 200},
        "convnext_base#laion400m_s13b_b51k": {"image_size": 256},
        "starter": {"image_size": 96, "output_dim": 64},
    }.items():
        check_options(config_of(find_model(name)), ModelOptions(**options))


# Gradient checkpointing


def gradients(clip: Clip) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of all weights after one step's backward pass, and the buffers as they are then."""
    towers, images = Towers(clip, "fp32"), torch.from_numpy(pixels(clip, 3))
    train_mode(clip.model)
    backward(
        towers.encode_images,
        towers.encode_texts,
        images,
        clip.tokenizer(TEXTS),
        lambda one, other: clip_loss(EmbeddedBatch(one, other, clip.model.logit_scale.exp())),
        model=clip.model,
    )
    found = {name: each.grad for name, each in clip.model.named_parameters() if each.grad is not None}
    return found, dict(clip.model.named_buffers())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "resnet"])
def test_gradients_are_those_without_checkpointing(folder_of: Callable[[str], Path], kind: str) -> None:
    one, other = (load_clip(str(folder_of(kind))) for _ in range(2))
    checkpoint_gradients(other.model, ["image", "text"])

    (kept, buffers), (computed, others) = gradients(one), gradients(other)

    assert kept.keys() == computed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(computed[name], gradient, rtol=1e-5, atol=1e-7)
    assert all(torch.equal(others[name], buffer) for name, buffer in buffers.items())  # statistics count once


def test_a_tower_of_hugging_face_has_the_same_gradients(hugging_face: tuple[Any, dict[str, Any]]) -> None:
    model, _ = hugging_face
    tokens = torch.randint(2, 99, (3, 16), generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(2):
        model.train().zero_grad()
        model.encode_text(tokens).square().sum().backward()
        found.append({name: each.grad.clone() for name, each in model.text.named_parameters() if each.grad is not None})
        kept = activation_bytes(lambda: model.encode_text(tokens).sum(), list(model.parameters()))
        found.append(kept)
        checkpoint_gradients(model, ["image", "text"])

    assert found[3] < 0.7 * found[1]
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[2][name], gradient, rtol=1e-5, atol=1e-7)


def test_less_is_kept_for_the_backward_pass(folder_of: Callable[[str], Path]) -> None:
    for kind in ("vit", "timm vit", "timm"):
        clip = load_clip(str(folder_of(kind)))
        images = clip.normalise(torch.from_numpy(pixels(clip, 2)))

        def kept(clip: Clip = clip, images: torch.Tensor = images) -> int:
            return activation_bytes(lambda: clip.model.encode_image(images).sum(), list(clip.model.parameters()))

        before = kept()
        checkpoint_gradients(clip.model, ["image", "text"])
        assert kept() < 0.8 * before


def test_a_tower_without_the_means_for_it_is_refused_unless_it_is_locked(folder_of: Callable[[str], Path]) -> None:
    clip = load_clip(str(folder_of("resnet")))

    with pytest.raises(SettingsError, match=r"gradient_checkpointing: .*open_clip's ResNet has none.*micro_batch_size"):
        checkpoint_gradients(clip.model, ["image", "text"])

    checkpoint_gradients(clip.model, ["text"])
    assert clip.model.transformer.grad_checkpointing


@pytest.mark.parametrize("kind", ["vit", "timm"])
def test_low_rank_changes_train_in_another_shape_with_checkpointing(folder_of: Callable[[str], Path], kind: str) -> None:
    clip = load_clip(str(folder_of(kind)), options=ModelOptions(image_size=64, output_dim=12))
    checkpoint_gradients(clip.model, ["image", "text"])
    add_lora(clip.model, 2)

    assert len(set(two_steps(clip))) == 2


# Width of embeddings


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("coca", "timm vit")])
@pytest.mark.parametrize("width", [8, 40])
def test_a_model_of_another_width_trains_and_open_clip_opens_it_by_itself(
    folder_of: Callable[[str], Path], tmp_path: Path, kind: str, width: int
) -> None:
    clip = load_clip(str(folder_of(kind)), options=ModelOptions(output_dim=width))
    assert np.isfinite(two_steps(clip)).all()

    clip.save_folder(tmp_path / "saved")

    assert json.loads((tmp_path / "saved" / CONFIG).read_text())["model_cfg"]["embed_dim"] == width
    assert embeddings(clip).shape == (7, width)
    np.testing.assert_allclose(opened_by_open_clip(tmp_path / "saved", pixels(clip)), embeddings(clip), atol=1e-6)
    assert np.array_equal(embeddings(load_folder(tmp_path / "saved")), embeddings(clip))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("coca", "timm vit")])
def test_wider_embeddings_begin_with_the_similarities_of_the_old_ones(folder_of: Callable[[str], Path], kind: str) -> None:
    clips = [load_clip(str(folder_of(kind)), options=ModelOptions(output_dim=width)) for width in (24, 40)]
    if kind == "resnet":  # a projection with a bias turns as a whole
        for clip in clips:
            bias = clip.model.visual.attnpool.c_proj.bias
            assert bias.shape == (clip.config["embed_dim"],)

    old, new = (found @ found.T for found in map(embeddings, clips))

    np.testing.assert_allclose(new, old, atol=1e-5)


def test_narrower_embeddings_keep_the_directions_that_matter(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Of a model whose projections have few directions, a narrow one keeps all similarities."""
    clip = load_clip(str(folder_of("vit")))
    torch.manual_seed(0)
    with torch.no_grad():
        directions = torch.randn(6, 24)
        clip.model.visual.proj.copy_(torch.randn(32, 6) @ directions)
        clip.model.text_projection.copy_(torch.randn(16, 6) @ directions)
    clip.save_folder(tmp_path)
    old = embeddings(clip)

    for width in (6, 20):
        new = embeddings(load_clip(str(tmp_path), options=ModelOptions(output_dim=width)))
        np.testing.assert_allclose(new @ new.T, old @ old.T, atol=1e-4)
    few = embeddings(load_clip(str(tmp_path), options=ModelOptions(output_dim=3)))
    assert np.abs(few @ few.T - old @ old.T).max() > 1e-2


# Shorter embeddings


LOSSES = {
    "CLIPLoss": {},
    "SigLIPLoss": {},
    "TripletMarginLoss": {},
    "DynamicSoftMarginLoss": {},
    "ArcFaceLoss": {},
    "MultipleLosses": {"losses": ["CLIPLoss", "ArcFaceLoss"]},
}


@pytest.mark.parametrize(("name", "options"), LOSSES.items())
def test_the_loss_is_the_mean_over_the_whole_and_its_beginnings(name: str, options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (
        torch.nn.functional.normalize(torch.randn(6, 12, generator=generator), dim=-1).requires_grad_() for _ in range(2)
    )
    rest = (torch.tensor(10.0), torch.tensor(-2.0), None, None, torch.tensor([0, 1, 2] * 2))
    dims = (12, 4, 6)

    def made() -> list[Any]:
        torch.manual_seed(0)
        return [make_loss(name, options, scope=Scope(3, dim)) for dim in dims]

    found = MatryoshkaLoss(made(), dims)(EmbeddedBatch(images, texts, *rest))

    alone = [
        loss(EmbeddedBatch(*(each[:, :dim] / each[:, :dim].norm(dim=1, keepdim=True) for each in (images, texts)), *rest))
        for loss, dim in zip(made(), dims, strict=True)
    ]
    assert found.item() == pytest.approx(sum(each.item() for each in alone) / 3, rel=1e-5)
    found.backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    weights = list(MatryoshkaLoss(made(), dims).parameters())
    assert [each.shape[0] for each in weights] == ([12, 4, 6] if "Arc" in name or name == "MultipleLosses" else [])


def test_an_artifact_says_what_lengths_it_was_trained_for(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    clip = load_clip(str(folder_of("vit")))
    assert clip.matryoshka_dims == ()
    clip.matryoshka_dims = (8, 16)
    clip.save_folder(tmp_path)

    assert load_folder(tmp_path).matryoshka_dims == (8, 16)
    assert load_clip(f"{tmp_path}#scratch").matryoshka_dims == ()
    assert load_clip(str(tmp_path), options=ModelOptions(output_dim=20)).matryoshka_dims == ()
    np.testing.assert_allclose(opened_by_open_clip(tmp_path, pixels(clip)), embeddings(clip), atol=1e-6)

    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**config, "matryoshka_dims": [8, 24]}))
    with pytest.raises(ModelError, match=r"matryoshka_dims = \[8, 24\] are no lengths, 32 at most, below 24"):
        load_folder(tmp_path)


# Whole runs

OPTIONS = {
    "image_size": 48,
    "context_length": 12,
    "output_dim": 20,
    "matryoshka_dims": [8, 16],
    "gradient_checkpointing": True,
}


def finished(name: str, model: Path | str, **changes: object) -> RunFolder:
    folder = start(name, model, **{"epochs": 2, "learning_rate": 1e-3, "ema_decay": 0, "check_pairs": False, **changes})
    for stage in STAGES:
        run = run_stage(stage, name)
    assert run.state == "FINISHED"
    return folder


def test_all_options_of_a_run_go_into_its_artifact_and_on_from_there(
    shapes: DatasetReport, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finished("first", f"{tiny_vit}#scratch", model_options=OPTIONS, interpolation=False, epochs=4)
    assert first.load().training.chosen != "start"

    # What open_clip makes of the artifact alone is what was measured.
    clip = load_folder(first.artifact)
    assert (clip.config["embed_dim"], clip.config["text_cfg"]["context_length"]) == (20, 12)
    assert (clip.preprocess["size"], clip.matryoshka_dims) == ([48, 48], (8, 16))
    np.testing.assert_allclose(opened_by_open_clip(first.artifact, pixels(clip)), embeddings(clip), atol=1e-6)
    found = first.load().evaluation
    assert found.before.keys() == found.after.keys()

    # Figures of each length, before and after.
    facts = json.loads((first.artifact / "metrics.json").read_text())
    section = next(one for one in facts["sections"] if one["name"] == "matryoshka")
    rows = {row["metric"]: row for row in section["rows"]}
    assert {f"{way}_recall@5_dim_{dim}" for way in DIRECTIONS for dim in (8, 16)} <= rows.keys()
    assert all(row["before"] is not None and row["low"] is not None for row in rows.values())
    assert "Shorter embeddings" in (first.report / "index.html").read_text()
    assert "first 8 or 16 numbers" in (first.artifact / "README.md").read_text()

    # The next run begins with it as it is, whatever was asked of the first one.
    second = finished("second", "first", epochs=1)
    again = load_folder(second.artifact)
    assert (again.config, again.preprocess) == (clip.config, clip.preprocess)
    assert second.load().evaluation.before == pytest.approx(found.after)
    measured = json.loads((second.artifact / "metrics.json").read_text())["sections"]
    assert "matryoshka" in [one["name"] for one in measured]  # what was learnt before is still looked at


def test_a_run_in_another_shape_goes_on_as_if_it_had_not_stopped(shapes: DatasetReport, tiny_vit: Path) -> None:
    settings = {"model_options": OPTIONS, "epochs": 2, "ema_decay": 0, "loss": "TripletMarginLoss", "check_pairs": False}
    whole = start("unbroken", tiny_vit, **settings)
    run_stage("train", "unbroken")
    broken = start("broken", tiny_vit, **settings)
    job = prepare(broken, check_settings(broken.load().settings), stop=lambda: job.position.step >= 2)

    with pytest.raises(TrainingStopped):
        fit(job)
    run_stage("train", "broken")

    one, other = (torch.load(folder.checkpoints / "last.pt", weights_only=True)["model"] for folder in (whole, broken))
    assert one["visual.proj"].shape == (32, 20)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 44}, "image_size = 44 is no multiple of 8"),
        ({"matryoshka_dims": [32]}, "matryoshka_dims: 32 is not below 32"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing: a tower of this model has no means for it"),
    ],
)
def test_a_run_with_options_that_its_model_cannot_have_does_not_begin(
    shapes: DatasetReport, tiny_vit: Path, folder_of: Callable[[str], Path], options: dict[str, Any], said: str
) -> None:
    model = folder_of("resnet") if "gradient_checkpointing" in options else tiny_vit
    with pytest.raises(SettingsError, match=said):
        start("refused", model, model_options=options)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("vit", {"loss": "SigLIPLoss"}, "'SigLIPLoss' learns with a bias of the logits, and .* has none. Use CLIPLoss"),
        (
            "vit",
            {"loss": "MultipleLosses", "loss_options": {"losses": ["CLIPLoss", "SigLIPLoss"]}},
            "'MultipleLosses' learns with a bias",
        ),
        ("siglip", {"self_distillation": 0.3}, r"self_distillation = 0.3 is a share .* 'auto' is SigLIPLoss for this model"),
    ],
)
def test_a_run_whose_model_cannot_learn_with_the_loss_does_not_begin(
    shapes: DatasetReport, folder_of: Callable[[str], Path], kind: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        start("refused", folder_of(kind), **settings)


def test_what_a_run_takes_is_counted_in_its_shape(tiny_vit: Path) -> None:
    plain, large = (
        count(check_settings({"model": str(tiny_vit), "train_data": "any", "model_options": options}))
        for options in ({}, {"image_size": 64, "output_dim": 256})
    )

    assert plain is not None
    assert large is not None
    assert (plain.pixels, large.pixels) == (3 * 32 * 32, 3 * 64 * 64)
    wider = (256 - 32) * (32 + 32) + (65 - 17) * 32  # both projections, and places
    assert (large.weights - plain.weights, large.trainable - plain.trainable) == (4 * wider, 4 * wider)
