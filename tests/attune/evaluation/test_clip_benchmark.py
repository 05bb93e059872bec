"""Attune's figures beside those that CLIP_benchmark itself gives, on the same pictures, texts and features."""

import inspect
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import linear_probe as peer_probe
from clip_benchmark.metrics import zeroshot_classification as peer_classification
from clip_benchmark.metrics import zeroshot_retrieval as peer_retrieval
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from attune.errors import DataError, SettingsError
from attune.evaluation.classification import classification_metrics
from attune.evaluation.clip_benchmark_probe import clip_benchmark_probe
from attune.evaluation.linear_probe import Features
from attune.evaluation.ranking import ranks
from attune.evaluation.zero_shot import classifier, templates, zero_shot
from attune.metrics import KS, retrieval_metrics
from attune.models.clip import Clip, load_clip
from attune.schemas import TrainingExample
from tests.conftest import COLOURS

pytestmark = [
    # of the peer's loaders, on a machine without a GPU
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
    # of the peer's report, where a class is never predicted, or predicted and not there
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning"),
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning"),
]


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Pictures(list[tuple[Tensor, object]]):
    """A dataset as the peer wants it: of pictures and targets or captions, with the names of its classes."""

    classes = COLOURS


@pytest.fixture(autouse=True)
def peer_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer with numpy 2.4, which makes no float of an array of one number any more, and on machines without CUDA."""
    monkeypatch.setattr(peer_classification, "float", lambda value: float(np.asarray(value).item()), raising=False)
    if DEVICE == "cpu":
        # compiled as by `python -O`: without the assertion that the device is CUDA
        exec(compile(inspect.getsource(peer_probe), peer_probe.__file__, "exec", optimize=1), vars(peer_probe))
        monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
        monkeypatch.setattr(torch.nn.Module, "cuda", lambda module: module)


@pytest.fixture(scope="module")
def clip(tiny_model: Path) -> Clip:
    return load_clip(str(tiny_model))


@pytest.fixture(scope="module")
def examples(make_examples: Callable[..., list[TrainingExample]]) -> list[TrainingExample]:
    return make_examples(60)


@pytest.fixture(scope="module")
def pixels(clip: Clip, examples: list[TrainingExample]) -> np.ndarray:
    pictures = [clip.resize(Image.open(io.BytesIO(example.image))) for example in examples]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def loader(clip: Clip, pixels: np.ndarray, others: Sequence[object], collate: bool = True) -> DataLoader[object]:
    """Batches of pictures and targets, or captions, as the peer takes them."""
    pictures = Pictures(zip(clip.normalise(torch.from_numpy(pixels)), others, strict=True))

    def keep_lists(batch: list[tuple[Tensor, object]]) -> tuple[Tensor, list[object]]:
        return torch.stack([image for image, _ in batch]), [other for _, other in batch]

    return DataLoader(pictures, batch_size=16, collate_fn=None if collate else keep_lists)  # type: ignore[arg-type]


def colours(examples: list[TrainingExample]) -> np.ndarray:
    return np.array([COLOURS.index(example.captions[0].split()[1]) for example in examples])


@pytest.mark.parametrize("name", ["simple", "openai"])
def test_zero_shot_figures_equal_the_peers(
    name: str, clip: Clip, examples: list[TrainingExample], pixels: np.ndarray
) -> None:
    targets, prompts = colours(examples), templates(name)

    scores = zero_shot(classifier(clip, COLOURS, prompts), clip.encode_images(pixels))

    clip.model.eval()
    batches = loader(clip, pixels, targets.tolist())
    peer = peer_classification.evaluate(clip.model, batches, clip.tokenizer, COLOURS, prompts, device="cpu", amp=False)
    assert classification_metrics(scores, targets) == pytest.approx(peer, abs=1e-6)
    assert 0 < peer["acc1"] < peer["acc5"] < 1


def test_retrieval_figures_equal_the_peers(clip: Clip, examples: list[TrainingExample], pixels: np.ndarray) -> None:
    captions = [example.captions for example in examples]
    texts = clip.encode_texts([text for several in captions for text in several])

    found = retrieval_metrics(ranks(clip.encode_images(pixels), texts, np.repeat(np.arange(60), 2)))

    clip.model.eval()
    batches = loader(clip, pixels, captions, collate=False)
    peer = peer_retrieval.evaluate(clip.model, batches, clip.tokenizer, "cpu", amp=False, recall_k_list=list(KS))
    for k in KS:
        assert found[f"text_to_image_recall@{k}"] == pytest.approx(peer[f"image_retrieval_recall@{k}"], abs=1e-6)
        assert found[f"image_to_text_recall@{k}"] == pytest.approx(peer[f"text_retrieval_recall@{k}"], abs=1e-6)
    assert 0 < found["text_to_image_recall@10"] < 1


def blobs(seed: int, pictures: int, classes: int = 7) -> Features:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, pictures)
    targets[:classes] = np.arange(classes)  # all are there
    centres = np.random.default_rng(99).standard_normal((classes, 12))
    vectors = 0.7 * centres[targets] + rng.standard_normal((pictures, 12))
    return Features((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), targets)


def peer_figures(
    folder: Path,
    train: Features,
    test: Features,
    validation: Features | None,
    *,
    shots: int,
    epochs: int,
    seed: int,
    amp: bool,
) -> dict[str, float] | None:
    """What the peer's `evaluate` makes of features that lie in its cache."""
    (folder / "model").mkdir()
    for name, part in (("train", train), ("val", validation), ("test", test)):
        if part is not None:
            torch.save(torch.from_numpy(part.vectors), folder / "model" / f"features_{name}.pt")
            torch.save(torch.from_numpy(part.targets), folder / "model" / f"targets_{name}.pt")
    torch.manual_seed(seed)
    return peer_probe.evaluate(
        torch.nn.Identity(),
        None,
        None,
        shots,
        batch_size=16,
        num_workers=0,
        lr=0.1,
        epochs=epochs,
        model_id="model",
        seed=seed,
        feature_root=str(folder),
        device=DEVICE,
        val_dataloader=validation,  # the peer asks only whether there is one
        amp=amp,
    )


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize(
    ("shots", "validated", "classes"),
    [(-1, False, 7), (-1, True, 7), (5, False, 7), (4, True, 7), (-1, True, 5), (6, True, 3)],
)
def test_probe_figures_equal_the_peers(shots: int, validated: bool, classes: int, amp: bool, tmp_path: Path) -> None:
    train, test = blobs(0, 90, classes), blobs(1, 100, classes)
    validation = blobs(2, 50, classes) if validated else None
    state = torch.random.get_rng_state()

    found = clip_benchmark_probe(
        train, test, validation, shots=shots, batch_size=16, epochs=2, seed=3, amp=amp, device=DEVICE
    )

    assert torch.equal(torch.random.get_rng_state(), state)
    peer = peer_figures(tmp_path, train, test, validation, shots=shots, epochs=2, seed=3, amp=amp)
    assert peer is not None
    expected = {name: peer[f"lp_{name}"] for name in ("acc1", "acc5", "mean_per_class_recall")}
    expected["weight_decay"] = peer["weight_decay"]
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert 1 / classes < found["acc1"] < 1
    assert np.isnan(found["acc5"]) == (classes <= 5)  # with exactly five classes too


def test_a_class_with_fewer_pictures_than_shots_is_refused_where_the_peer_gives_nothing(tmp_path: Path) -> None:
    train, test = blobs(0, 30), blobs(1, 30)
    fewest = int(np.bincount(train.targets).min())

    assert peer_figures(tmp_path, train, test, None, shots=fewest + 1, epochs=1, seed=0, amp=False) is None
    with pytest.raises(DataError, match=f"shots = {fewest + 1}, but class . has {fewest} training pictures"):
        clip_benchmark_probe(train, test, shots=fewest + 1)


def test_no_shots_at_all_are_refused() -> None:
    with pytest.raises(SettingsError, match="shots = 0"):
        clip_benchmark_probe(blobs(0, 30), blobs(1, 30), shots=0)
