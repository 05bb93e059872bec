"""timm's image models: found by name, loaded, changed, trained, saved, and opened by timm again."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from attune.data.images import decode
from attune.data.pixels import to_pixels
from attune.errors import ModelError, SearchError, SettingsError
from attune.export.artifact import largest_difference
from attune.losses.batch import EmbeddedBatch
from attune.losses.contrastive import clip_loss
from attune.models.checkpointing import checkpoint_gradients
from attune.models.clip import Clip, config_of, load_clip, load_folder
from attune.models.image_encoder import generalised_mean, pool_by_generalised_mean
from attune.models.layers import layer_scales, towers_of
from attune.models.lora import add_lora, merge_lora
from attune.models.options import check_options
from attune.models.source import ModelSource, find_model
from attune.models.timm_files import transforms
from attune.models.timm_folder import CONFIG, WEIGHTS
from attune.models.trainable import choose_trainable, train_mode
from attune.report.card import model_card
from attune.room import count
from attune.runs.folder import RunFolder
from attune.schemas import DatasetReport, FinetuningRun, SearchDocument
from attune.search.encoder import embed, load_encoder
from attune.settings import FinetuningSettings, ModelOptions
from attune.training.average import WeightAverage, statistics
from attune.training.checks import check_shares
from attune.training.step import backward
from attune.training.towers import Towers
from tests.attune.trained import start
from tests.conftest import picture

KINDS = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit")
SIZE = 32


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function: the folder of a tiny model with random weights and statistics, by timm's name of it."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("timm") / name
            clip = load_clip(f"timm/{name}#scratch", seed=1, options=ModelOptions(image_size=SIZE))
            torch.manual_seed(2)
            clip.model.train()
            for _ in range(30):  # batch norms learn what they see: or all pictures would be alike
                clip.model.encode_image(clip.normalise(torch.from_numpy(pixels(16))))
            found = clip.encode_images(pixels())
            assert np.linalg.norm(found[0] - found[1]) > 1e-2
            clip.save_folder(made[name])
        return made[name]

    return folder


def pixels(count: int = 4, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def by_timm(folder: Path, clip: Clip, given: np.ndarray, change: Callable[[Any], None] | None = None) -> np.ndarray:
    """Embeddings, with nothing of Attune but the pixels' normalisation."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    if change is not None:
        change(model)
    with torch.no_grad():
        return F.normalize(model(clip.normalise(torch.from_numpy(given))), dim=-1).numpy()


def state_of(name: str, seed: int = 3, **arguments: Any) -> dict[str, Tensor]:
    """Weights of a model of timm's, random ones."""
    torch.manual_seed(seed)
    state: dict[str, Tensor] = timm.create_model(name, **arguments).state_dict()
    return state


def test_takes_names_apart(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    folder = folder_of("test_vit")

    assert find_model("timm/resnet50.a1_in1k") == ModelSource("resnet50.a1_in1k", library="timm")
    assert find_model("timm/resnet50#scratch") == ModelSource("resnet50", scratch=True, library="timm")
    assert find_model(f"timm/resnet50#{weights}") == ModelSource("resnet50", weights=str(weights), library="timm")
    assert find_model("resnet-base") == ModelSource("resnet50.tv_in1k", library="timm")
    assert find_model(str(folder)) == ModelSource(folder=folder, library="timm")
    assert find_model(f"{folder}#scratch") == ModelSource(folder=folder, scratch=True, library="timm")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnet5O#scratch", r"timm has no model named 'resnet5O'\. Did you mean timm/resnet50"),
        ("timm/resnet50", r"does not say which weights\. Write timm/resnet50\.TAG with one of: a1_in1k, "),
        ("timm/resnet50.a1_in2k", r"resnet50 has no weights 'a1_in2k'\. Did you mean timm/resnet50\.a1_in1k"),
        ("timm/resnet50#nonsense", r"'timm/resnet50#nonsense': no such file exists"),
        ("timm/efficientnet_b7", r"with one of: none, so only #scratch or #path/to/checkpoint"),
    ],
)
def test_an_unknown_model_is_answered_with_what_there_is(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        find_model(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_folder_gives_bit_equal_embeddings_here_and_in_timm(
    folder_of: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    clip = load_clip(str(folder_of(kind)))
    with torch.no_grad():
        clip.model.logit_scale.fill_(1.2345)

    clip.save_folder(tmp_path / "saved")
    again = load_folder(tmp_path / "saved")

    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [CONFIG, WEIGHTS]
    assert np.array_equal(again.encode_images(pixels()), clip.encode_images(pixels()))
    assert np.array_equal(by_timm(tmp_path / "saved", clip, pixels()), clip.encode_images(pixels()))
    assert (again.config, again.preprocess, again.towers) == (clip.config, clip.preprocess, ("image",))
    assert torch.equal(again.model.logit_scale, clip.model.logit_scale)
    assert largest_difference(clip, again, pixels(), []) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_what_timm_gives_without_a_classifier(tmp_path: Path, kind: str) -> None:
    """Of a checkpoint with one, as timm's own are, in a file of any of the two kinds."""
    state = state_of(kind)
    save_file(state, tmp_path / "weights.safetensors")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "weights.pth")

    plain = timm.create_model(kind, num_classes=0)
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})

    for file in ("weights.safetensors", "weights.pth"):
        clip = load_clip(f"timm/{kind}#{tmp_path / file}")
        given = pixels(2, clip.preprocess["size"])
        with torch.no_grad():
            expected = F.normalize(plain.eval()(clip.normalise(torch.from_numpy(given))), dim=-1).numpy()
        assert np.array_equal(clip.encode_images(given), expected)
        assert clip.config["embed_dim"] == expected.shape[1]


@pytest.mark.parametrize("lacking", ["layer2.0.conv1.weight", "bn1.running_mean"])
def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path, lacking: str) -> None:
    state = state_of("test_resnet")
    del state[lacking]
    save_file(state, tmp_path / "weights.safetensors")

    with pytest.raises(ModelError, match=rf"(?s)could not be loaded: .*Missing key.*{lacking}"):
        load_clip(f"timm/test_resnet#{tmp_path / 'weights.safetensors'}")


def test_a_checkpoint_with_other_objects_than_weights_is_not_read(tmp_path: Path) -> None:
    torch.save({"state_dict": state_of("test_resnet"), "extra": Path("x")}, tmp_path / "weights.pth")

    with pytest.raises(ModelError, match="holds Python objects besides weights"):
        load_clip(f"timm/test_resnet#{tmp_path / 'weights.pth'}")


def test_weights_of_the_hub_come_from_its_cache_and_without_them_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"could not be loaded: .* without a network use .*`NAME#path/to/checkpoint`"):
        load_clip("timm/test_vit.r160_in1k")

    cached = tmp_path / "models--timm--test_vit.r160_in1k"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    state = state_of("test_vit")
    save_file(state, cached / "snapshots" / ("0" * 40) / "model.safetensors")
    clip = load_clip("timm/test_vit.r160_in1k")

    assert torch.equal(clip.model.visual.trunk.blocks[5].mlp.fc2.weight, state["blocks.5.mlp.fc2.weight"])
    assert clip.config["architecture"] == "test_vit.r160_in1k"


PICTURES = {
    "wide": picture("red", "square", size=(80, 41)),
    "tall": picture("blue", "cross", size=(33, 97)),
    "small": picture("green", "triangle", "black", size=(20, 20)),
    "jpeg": picture("purple", "circle", size=(64, 50), kind="JPEG"),
}


@pytest.mark.parametrize("data", PICTURES.values(), ids=PICTURES.keys())
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize(("crop_pct", "interpolation"), [(0.875, "bilinear"), (0.95, "bicubic"), (1.0, "bicubic")])
def test_pixels_are_exactly_those_of_timms_own_preprocessing(
    folder_of: Callable[[str], Path], tmp_path: Path, data: bytes, crop_mode: str, crop_pct: float, interpolation: str
) -> None:
    shutil.copytree(folder_of("test_resnet"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    config["pretrained_cfg"] |= {"crop_mode": crop_mode, "crop_pct": crop_pct, "interpolation": interpolation}
    config["pretrained_cfg"] |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config))
    clip = load_clip(str(tmp_path / "model"))
    model = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)

    ours = clip.normalise(torch.from_numpy(to_pixels(decode(data), clip.resize)[None].copy()))

    assert ours.shape == (1, 3, SIZE, SIZE)
    assert torch.equal(ours[0], preprocess(decode(data)))
    assert [type(step) for step in transforms(clip.preprocess)] == [type(step) for step in preprocess.transforms]


def test_generalised_mean_by_hand() -> None:
    places = torch.tensor([[1.0, 2.0, -5.0, 3.0]])

    # The cubes are 1, 8, next to 0 and 27: their mean is 9.
    torch.testing.assert_close(generalised_mean(places, (1,)), torch.tensor([9 ** (1 / 3)]))
    assert generalised_mean(torch.zeros(2, 3, 4, 4), (2, 3), keepdim=True).shape == (2, 3, 1, 1)


def naive(pooler: str, places: Tensor) -> Tensor:
    """Of (places, dim), a place and a number after the other."""
    found = []
    for column in range(places.shape[1]):
        values = [float(value) for value in places[:, column]]
        if pooler == "mean":
            found.append(sum(values) / len(values))
        elif pooler == "max":
            found.append(max(values))
        else:
            found.append((sum(max(value, 1e-6) ** 3 for value in values) / len(values)) ** (1 / 3))
    return torch.tensor(found)


@pytest.mark.parametrize("pooler", ["mean", "max", "gem"])
@pytest.mark.parametrize("kind", ["test_resnet", "test_efficientnet", "test_vit"])
def test_poolers_are_what_their_names_say(folder_of: Callable[[str], Path], tmp_path: Path, kind: str, pooler: str) -> None:
    clip = load_clip(str(folder_of(kind)), options=ModelOptions(pooler=pooler))
    trunk = clip.model.visual.trunk.eval()
    given = clip.normalise(torch.from_numpy(pixels(2)))
    with torch.no_grad():
        features, found = trunk.forward_features(given), trunk(given)
    if features.ndim == 4:
        features = features.flatten(2).mT
    places = features[:, trunk.num_prefix_tokens :] if kind == "test_vit" else features

    expected = torch.stack([naive(pooler, one) for one in places])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    clip.save_folder(tmp_path / "saved")
    again = load_folder(tmp_path / "saved")
    assert np.array_equal(again.encode_images(pixels()), clip.encode_images(pixels()))
    added = pool_by_generalised_mean if pooler == "gem" else None
    assert np.array_equal(by_timm(tmp_path / "saved", clip, pixels(), added), clip.encode_images(pixels()))


def test_places_beside_channels_are_pooled_too() -> None:
    """Swin has its channels last."""
    torch.manual_seed(0)
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "img_size": 64, "window_size": 2}
    trunk = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **small).eval()
    features = trunk.forward_features(torch.randn(2, 3, 64, 64)).detach()
    pool_by_generalised_mean(trunk)

    expected = torch.stack([naive("gem", one.flatten(0, 1)) for one in features])
    torch.testing.assert_close(trunk.forward_head(features), expected, rtol=1e-4, atol=1e-5)


def test_a_class_token_is_the_first_and_another_pooling_leaves_the_norm_before_it(folder_of: Callable[[str], Path]) -> None:
    own = load_clip(str(folder_of("test_vit")))
    by_mean = load_clip(str(folder_of("test_vit")), options=ModelOptions(pooler="mean"))
    by_class = load_clip(str(folder_of("test_vit")), options=ModelOptions(pooler="cls"))

    assert by_mean.config["model_args"] == {"img_size": [SIZE, SIZE], "global_pool": "avg", "fc_norm": False}
    assert by_mean.model.visual.state_dict().keys() == own.model.visual.state_dict().keys()
    assert np.array_equal(by_class.encode_images(pixels()), own.encode_images(pixels()))
    assert not np.allclose(by_mean.encode_images(pixels()), own.encode_images(pixels()), atol=1e-2)


def test_places_of_a_larger_picture_are_interpolated_as_timm_does_it(folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("test_vit")
    ours = load_clip(str(folder), options=ModelOptions(image_size=64))

    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=64).state_dict()

    assert ours.model.visual.trunk.pos_embed.shape == (1, 17, 64)
    assert torch.equal(ours.model.visual.trunk.pos_embed, theirs["pos_embed"])
    assert ours.encode_images(pixels(size=64)).shape == (4, 64)
    assert ours.preprocess["size"] == 64


@pytest.mark.parametrize("kind", KINDS)
def test_a_projection_is_timms_classifier_and_leaves_similarities_nearly_as_they_are(
    folder_of: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    own = load_clip(str(folder_of(kind)))
    before = own.encode_images(pixels())
    wide = load_clip(str(folder_of(kind)), options=ModelOptions(output_dim=300))
    np.testing.assert_allclose(wide.encode_images(pixels()) @ wide.encode_images(pixels()).T, before @ before.T, atol=1e-5)

    clip = load_clip(str(folder_of(kind)), options=ModelOptions(output_dim=16))
    head = clip.model.visual.trunk.get_classifier()
    torch.testing.assert_close(head.weight @ head.weight.T, torch.eye(16))
    clip.save_folder(tmp_path / "saved")
    again = load_folder(tmp_path / "saved")

    assert again.encode_images(pixels()).shape == (4, 16)
    assert np.array_equal(again.encode_images(pixels()), clip.encode_images(pixels()))
    assert np.array_equal(by_timm(tmp_path / "saved", clip, pixels()), clip.encode_images(pixels()))
    assert again.config == clip.config


def test_a_projection_that_was_trained_keeps_its_largest_directions(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    clip = load_clip(str(folder_of("test_vit")), options=ModelOptions(output_dim=8))
    head = clip.model.visual.trunk.get_classifier()
    torch.manual_seed(0)
    with torch.no_grad():
        head.weight.copy_(torch.diag(torch.tensor([9.0, 8, 7, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4])) @ torch.randn(8, 64))
        head.bias.copy_(torch.tensor([1.0, 2, 3, 0, 0, 0, 0, 0]))
    clip.save_folder(tmp_path / "saved")
    before = clip.encode_images(pixels())

    for width in (3, 12):
        after = load_clip(str(tmp_path / "saved"), options=ModelOptions(output_dim=width)).encode_images(pixels())
        np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-4)


def test_a_folder_with_a_classifier_is_an_encoder_without_it(tmp_path: Path) -> None:
    """As one downloads it from the hub."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)

    clip = load_clip(str(tmp_path))

    assert clip.config["num_classes"] == 0
    given = pixels(2, clip.preprocess["size"])
    with torch.no_grad():
        features = model.eval().forward_head(
            model.forward_features(clip.normalise(torch.from_numpy(given))), pre_logits=True
        )
    assert np.array_equal(clip.encode_images(given), F.normalize(features, dim=-1).numpy())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("test_vit", {"context_length": 16}, "context_length = 16: test_vit.* has no text tower"),
        (
            "test_vit",
            {"image_size": 70},
            r"image_size = 70: test_vit.* cannot take such pictures .* choose a multiple of 16",
        ),
        ("test_resnet", {"pooler": "cls"}, "'cls': test_resnet.* own pooling is 'avg'; choose one of mean, max, gem"),
        ("test_vit", {"pooler": "last"}, "choose one of mean, max, gem, cls"),
        ("test_vit3", {"pooler": "mean"}, "own pooling is 'map'; leave it out"),
        ("beit_base_patch16_224", {"pooler": "max"}, "a part of its layers'; leave it out"),
        ("deit_tiny_distilled_patch16_224", {"output_dim": 8}, "no place for one linear projection"),
        ("test_vit", {"matryoshka_dims": (16, 64)}, "matryoshka_dims: 64 is not below 64"),
    ],
)
def test_what_a_model_cannot_be_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_options(config_of(find_model(f"timm/{name}#scratch")), ModelOptions(**options))


def test_it_embeds_no_texts(folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(ModelError, match="it has no text tower"):
        load_clip(str(folder_of("test_vit"))).encode_texts(["a cat"])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("", {"architecture": "../../evil"}),
        ("", {"architecture": "hf-hub:somebody/model"}),
        ("", {"pretrained_cfg": [1]}),
        ("", {"model_args": [1]}),
        ("", {"model_args": {"global_pool": []}}),
        ("", {"attune": 1}),
        ("", {"attune": {"pooler": ["gem"]}}),
        ("", {"model_args": {"img_size": 10**9}}),
        ("", {"model_args": {"pretrained": True}}),
        ("", {"model_args": {"checkpoint_path": "/etc/passwd"}}),
        ("", {"model_args": {"depth": 100_000}}),
        ("", {"model_args": {"in_chans": 1}}),
        ("", {"num_classes": 7, "attune": {"projection": 10**9}}),
        ("", {"attune": {"projection": 7}}),
        ("", {"attune": {"logit_scale": 1e9}}),
        ("", {"attune": {"pooler": "eval"}}),
        ("", {"attune": {"matryoshka_dims": [-1]}}),
        ("pretrained_cfg", {"input_size": [3, 10**6, 10**6]}),
        ("pretrained_cfg", {"mean": ["a", 0, 0]}),
        ("pretrained_cfg", {"std": [0, 0, 0]}),
        ("pretrained_cfg", {"crop_pct": 1e-9}),
        ("pretrained_cfg", {"interpolation": "__import__"}),
    ],
)
def test_a_folder_that_says_what_cannot_be_is_refused(
    folder_of: Callable[[str], Path], tmp_path: Path, part: str, change: dict[str, Any]
) -> None:
    shutil.copytree(folder_of("test_resnet"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    (config[part] if part else config).update(change)
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config))

    with pytest.raises(ModelError, match=r"config\.json cannot be used: (?!a value in it is of another kind)"):
        find_model(str(tmp_path / "model"))


@pytest.mark.parametrize("arguments", [{"fc_norm": True}, {"global_pool": "map"}])
def test_a_folder_that_timm_cannot_build_is_refused_before_a_run(
    folder_of: Callable[[str], Path], tmp_path: Path, arguments: dict[str, Any]
) -> None:
    shutil.copytree(folder_of("test_resnet"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config | {"model_args": arguments}))

    with pytest.raises(ModelError, match=r"config\.json cannot be used: "):
        config_of(find_model(str(tmp_path / "model")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attune": {"matryoshka_dims": [8, 96]}}, r"matryoshka_dims = \[8, 96\] are no lengths, 32 at most, below 96"),
        (
            {"num_classes": 16, "attune": {"projection": 16, "matryoshka_dims": [24]}},
            r"matryoshka_dims = \[24\] are no lengths, 32 at most, below 16",
        ),
        (
            {"architecture": "swinv2_cr_tiny_224", "model_args": {"img_size": 8192}},
            r"it describes a model of 5e\+11 weights; at most 2e\+10 are built",
        ),
    ],
)
def test_what_only_the_model_tells_is_refused_before_a_run(
    folder_of: Callable[[str], Path], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    """The width of its embeddings; the masks that grow with the square of its pictures."""
    shutil.copytree(folder_of("test_resnet"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config | change))

    with pytest.raises(ModelError, match=rf"config\.json cannot be used: {said}"):
        config_of(find_model(str(tmp_path / "model")))


def test_where_a_folder_says_its_weights_are_is_not_looked_at(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(folder_of("test_resnet"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / CONFIG).read_text())
    config["pretrained_cfg"] |= {"file": "/etc/passwd", "url": "http://127.0.0.1:1/x", "custom_load": True}
    (tmp_path / "model" / CONFIG).write_text(json.dumps(config))

    again = load_clip(str(tmp_path / "model"))

    assert np.array_equal(again.encode_images(pixels()), load_clip(str(folder_of("test_resnet"))).encode_images(pixels()))


def test_a_folder_with_pickled_weights_alone_or_links_out_of_it_is_refused(
    folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folder_of("test_resnet")
    linked = tmp_path / "linked"
    linked.mkdir()
    shutil.copy(folder / CONFIG, linked / CONFIG)
    (linked / WEIGHTS).symlink_to(folder / WEIGHTS)
    with pytest.raises(ModelError, match="has links that lead out of it"):
        find_model(str(linked), [tmp_path])

    (linked / WEIGHTS).unlink()
    torch.save(state_of("test_resnet"), linked / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"there is no model\.safetensors beside it"):
        find_model(str(linked))


def trained(clip: Clip, steps: int = 2, micro_batch_size: int | None = None) -> list[float]:
    """Learns six pairs of pictures of a colour each; the loss of each step."""
    towers, images = Towers(clip, "fp32"), torch.from_numpy(pixels(12, 1)).expand(-1, -1, SIZE, SIZE).contiguous()
    optimizer = torch.optim.AdamW([each for each in clip.model.parameters() if each.requires_grad], lr=1e-3)
    train_mode(clip.model)
    torch.manual_seed(0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = backward(
            towers.encode_images,
            towers.encode_images,
            images[:6],
            images[6:],
            lambda one, other: clip_loss(EmbeddedBatch(one, other, clip.model.logit_scale.exp())),
            micro_batch_size,
            clip.model,
        )
        assert all(each.grad.isfinite().all() for each in clip.model.parameters() if each.grad is not None)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("pooler", [None, "gem"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_trains(folder_of: Callable[[str], Path], kind: str, pooler: Any) -> None:
    clip = load_clip(str(folder_of(kind)), options=ModelOptions(pooler=pooler, output_dim=16))
    before = {name: value.clone() for name, value in clip.model.named_parameters()}

    losses = trained(clip, steps=15)

    assert losses[-1] < losses[0]
    still = [name for name, value in clip.model.named_parameters() if torch.equal(before[name], value)]
    assert not [name for name in still if not name.endswith("pos_embed")]


@pytest.mark.parametrize("kind", ["test_resnet", "test_vit"])
def test_checkpointed_gradients_are_the_same_and_statistics_are_updated_once(
    folder_of: Callable[[str], Path], kind: str
) -> None:
    plain, saving = load_clip(str(folder_of(kind))), load_clip(str(folder_of(kind)))
    checkpoint_gradients(saving.model, ["image"])

    assert trained(plain) == pytest.approx(trained(saving), rel=1e-4)

    for name, value in statistics(plain.model).items():
        torch.testing.assert_close(statistics(saving.model)[name], value, rtol=1e-3, atol=1e-4)


def test_each_micro_batch_updates_the_statistics_of_a_batch_norm_once(folder_of: Callable[[str], Path]) -> None:
    """Six pictures and six matches, two at a time, make six updates in one step."""
    clip = load_clip(str(folder_of("test_resnet")))
    before = clip.model.visual.trunk.bn1.num_batches_tracked.item()

    trained(clip, steps=1, micro_batch_size=2)

    batches = clip.model.visual.trunk.bn1.num_batches_tracked
    assert batches == before + 6


def test_a_batch_norm_over_single_places_is_given_two_pictures_at_least(folder_of: Callable[[str], Path]) -> None:
    """The last map of such small pictures is one place: of one picture there would be no variance."""
    clip = load_clip(str(folder_of("test_resnet")))
    assert clip.model.visual.trunk.forward_features(torch.zeros(2, 3, SIZE, SIZE)).shape[2:] == (1, 1)
    before = clip.model.visual.trunk.bn1.num_batches_tracked.item()

    trained(clip, steps=1, micro_batch_size=1)

    assert clip.model.visual.trunk.bn1.num_batches_tracked == before + 6
    frozen = load_clip(str(folder_of("test_resnet"))).model
    add_lora(frozen, 2)
    check_shares(frozen, smallest=3, processes=2)
    check_shares(clip.model, smallest=4, processes=2)
    with pytest.raises(SettingsError, match=r"one of them has a single picture.* Raise batch_size to 4 or more"):
        check_shares(clip.model, smallest=3, processes=2)


def test_statistics_of_a_batch_norm_are_averaged_with_the_weights(folder_of: Callable[[str], Path]) -> None:
    clip = load_clip(str(folder_of("test_resnet")))
    average = WeightAverage(clip.model, decay=0.5)
    start = clip.model.visual.trunk.bn1.running_mean.clone()
    trained(clip, steps=1)
    end = clip.model.visual.trunk.bn1.running_mean.clone()

    average.update(clip.model)

    with average.applied(clip.model):
        # The first step counts 1 - 2/11 of the way.
        torch.testing.assert_close(clip.model.visual.trunk.bn1.running_mean, torch.lerp(start, end, 9 / 11))
    assert torch.equal(clip.model.visual.trunk.bn1.running_mean, end)


@pytest.mark.parametrize(
    ("kind", "blocks"), [("test_resnet", 4), ("test_efficientnet", 5), ("test_convnext", 4), ("test_vit", 6)]
)
def test_layers_are_numbered_from_the_input_and_the_projection_is_the_last(
    folder_of: Callable[[str], Path], kind: str, blocks: int
) -> None:
    model = load_clip(str(folder_of(kind)), options=ModelOptions(output_dim=16)).model
    head = next(name for name, module in model.named_modules() if module is model.visual.trunk.get_classifier())

    scales = layer_scales(model, 0.5)

    assert towers_of(model) == ("image",)
    assert scales[f"{head}.weight"] == scales["logit_scale"] == 1
    assert min(scales.values()) == 0.5 ** (blocks + 1)
    choose_trainable(model, lock_image=False, lock_text=False, last_blocks=0)
    assert f"{head}.weight" in {name for name, value in model.named_parameters() if value.requires_grad}
    with pytest.raises(SettingsError, match=f"the image tower has {blocks} blocks. Choose from 0 to {blocks}"):
        choose_trainable(model, lock_image=False, lock_text=False, last_blocks=9)


def test_without_a_projection_nothing_is_behind_the_blocks_of_a_resnet(folder_of: Callable[[str], Path]) -> None:
    model = load_clip(str(folder_of("test_resnet"))).model
    with pytest.raises(SettingsError, match="leave nothing to train.* and a block of it"):
        choose_trainable(model, lock_image=False, lock_text=False, last_blocks=0)


@pytest.mark.parametrize("kind", KINDS)
def test_low_rank_changes_are_merged_into_what_timm_opens(
    folder_of: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    clip = load_clip(str(folder_of(kind)))
    torch.manual_seed(0)
    add_lora(clip.model, rank=2, towers=["image"])
    start = clip.encode_images(pixels())
    trained(clip)
    adapted = clip.encode_images(pixels())
    merge_lora(clip.model)
    clip.save_folder(tmp_path / "saved")

    assert not np.array_equal(adapted, start)
    np.testing.assert_allclose(by_timm(tmp_path / "saved", clip, pixels()), adapted, atol=1e-5)


def test_what_it_takes_is_counted_before_anything_is_loaded(attune_home: Path, folder_of: Callable[[str], Path]) -> None:
    given = {"model": str(folder_of("test_vit")), "lora_rank": 2, "model_options": {"output_dim": 16}}

    found = count(FinetuningSettings(**given))

    clip = load_clip(str(folder_of("test_vit")), options=ModelOptions(output_dim=16))
    assert found is not None
    assert found.weights == sum(value.nbytes for value in clip.model.state_dict().values())
    assert found.pixels == 3 * SIZE * SIZE
    add_lora(clip.model, 2)
    assert found.trainable == 4 * sum(value.numel() for value in clip.model.parameters() if value.requires_grad)


def test_masks_that_are_in_no_file_count_towards_memory() -> None:
    """Swin-T at 224 pixels has windows of 49 places, 64, 16, 4 and 1 of them in its stages of 2, 2, 6 and 2 blocks."""
    found = count(FinetuningSettings(model="timm/swin_tiny_patch4_window7_224#scratch"))

    of_shifted_blocks = (64 + 16 + 3 * 4) * 49 * 49 * 4  # every second block, but where there is one window only
    of_places = 12 * 49 * 49 * 8
    assert found is not None
    assert found.masks == of_shifted_blocks + of_places
    assert found.weights < 120_000_000


def test_data_with_captions_is_refused_before_training(shapes: DatasetReport, folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(SettingsError, match=r"embeds images alone, and the data holds pictures with captions"):
        start("captioned", folder_of("test_vit"))
    assert RunFolder.open("captioned").load().state == "FAILED"


def test_search_takes_pictures_and_says_why_it_takes_no_texts(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = str(folder_of("test_vit"))
    encoder = load_encoder(folder, "cpu")
    document = SearchDocument(image=PICTURES["wide"])
    embed(encoder, [document])

    clip = load_clip(folder)
    expected = clip.encode_images(to_pixels(decode(PICTURES["wide"]), clip.resize)[None])[0]
    np.testing.assert_allclose(document.embedding, expected, atol=1e-6)
    with pytest.raises(SearchError, match="it has a text only, but the model embeds pictures alone"):
        embed(encoder, [SearchDocument(text="a cat")])
    with pytest.raises(SettingsError, match=r"towers = 'text': .* embeds images alone"):
        load_encoder(folder, "cpu", "text")


def test_the_card_says_how_timm_opens_it(folder_of: Callable[[str], Path]) -> None:
    clip = load_clip(str(folder_of("test_resnet")), options=ModelOptions(pooler="gem"))
    run = FinetuningRun(name="mine", settings={"model": "timm/test_resnet.r160_in1k"})

    card = model_card(run, clip.config)

    assert "library_name: timm" in card
    assert "base_model: timm/test_resnet.r160_in1k" in card
    assert 'timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True)' in card
    assert "pool_by_generalised_mean(model)" in card
    assert "open_clip" not in card


def test_shorter_embeddings_it_was_trained_for_are_kept(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    clip = load_clip(str(folder_of("test_vit")), options=ModelOptions(matryoshka_dims=(16, 8)))
    clip.matryoshka_dims = (8, 16)
    clip.save_folder(tmp_path / "saved")

    assert load_folder(tmp_path / "saved").matryoshka_dims == (8, 16)
    assert load_encoder(str(tmp_path / "saved"), "cpu", dim=8).dim == 8
    assert load_clip(f"{tmp_path / 'saved'}#scratch").matryoshka_dims == ()
    assert load_clip(str(tmp_path / "saved"), options=ModelOptions(output_dim=12)).matryoshka_dims == ()


def test_a_picture_with_transparency_is_prepared_as_any_other(folder_of: Callable[[str], Path]) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 30), (255, 0, 0, 0)).save(buffer, "PNG")
    clip = load_clip(str(folder_of("test_resnet")))

    assert (to_pixels(decode(buffer.getvalue()), clip.resize) == 255).all()
