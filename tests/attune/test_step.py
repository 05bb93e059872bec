from collections.abc import Callable

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attune.losses.batch import EmbeddedBatch
from attune.losses.contrastive import clip_loss
from attune.training.step import backward

VOCABULARY, LENGTH = 40, 6


def tiny_clip(dtype: torch.dtype = torch.float64) -> open_clip.CLIP:
    """A ViT and a text transformer of one layer each: LayerNorm only, about 35 000 weights."""
    torch.manual_seed(0)
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1}
    text = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 1}
    return open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, cast_dtype=None).to(dtype)


def rows(images: int, texts: int | None = None, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random pictures and tokens."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (images, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, VOCABULARY, (texts or images, LENGTH), generator=generator)


class Towers:
    """Encoders of a model and its loss; remembers how many rows were encoded at a time."""

    def __init__(self, model: open_clip.CLIP, noise: float = 0.0, dropout: float = 0.0) -> None:
        self.model, self.noise, self.dropout = model, noise, dropout
        self.image_calls: list[int] = []
        self.text_calls: list[int] = []

    def images(self, pixels: Tensor) -> Tensor:
        self.image_calls.append(len(pixels))
        inputs = F.dropout(pixels / 255, self.noise).to(self.model.logit_scale.dtype)
        return self.model.encode_image(inputs, normalize=True)

    def texts(self, tokens: Tensor) -> Tensor:
        self.text_calls.append(len(tokens))
        return F.normalize(F.dropout(self.model.encode_text(tokens), self.dropout), dim=-1)

    def loss(self, images: Tensor, texts: Tensor) -> Tensor:
        # as clip_loss, without its rounding to float32
        logits = self.model.logit_scale.exp() * images @ texts.T
        target = torch.arange(len(images), device=images.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """The gradient of each parameter, which is then forgotten."""
    found = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def by_pieces(encode: Callable[[Tensor], Tensor], inputs: Tensor, pieces: int) -> Tensor:
    """Embeddings with one graph, encoded in pieces: what micro-batches must equal, random numbers included."""
    return torch.cat([encode(piece) for piece in inputs.tensor_split(pieces)])


def assert_same(found: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 7, 100])
def test_micro_batches_give_every_parameter_the_gradient_of_the_whole_batch(size: int) -> None:
    model = tiny_clip()
    towers = Towers(model)
    images, texts = rows(7)
    towers.loss(towers.images(images), towers.texts(texts)).backward()
    expected = gradients(model)
    assert all(value is not None and value.abs().max() > 0 for value in expected.values())

    loss = backward(towers.images, towers.texts, images, texts, towers.loss, size)

    assert_same(gradients(model), expected)
    torch.testing.assert_close(loss, towers.loss(towers.images(images), towers.texts(texts)).detach())
    assert not loss.requires_grad


def test_the_whole_batch_at_once_is_a_plain_backward_pass() -> None:
    model = tiny_clip()
    towers = Towers(model)
    images, texts = rows(5)
    towers.loss(towers.images(images), towers.texts(texts)).backward()
    expected = gradients(model)
    towers.image_calls.clear()

    backward(towers.images, towers.texts, images, texts, towers.loss)

    torch.testing.assert_close(gradients(model), expected, rtol=0, atol=0)
    assert towers.image_calls == [5]


def test_gradients_are_added_to_those_that_are_there() -> None:
    model = tiny_clip()
    towers = Towers(model)
    backward(towers.images, towers.texts, *rows(4), towers.loss, 2)
    expected = {name: 2 * value for name, value in gradients(model).items()}

    for _ in "12":
        backward(towers.images, towers.texts, *rows(4), towers.loss, 2)

    assert_same(gradients(model), expected)


@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
def test_random_numbers_are_the_same_in_both_passes(device: str) -> None:
    model = tiny_clip().to(device)
    towers = Towers(model, noise=0.3, dropout=0.3)
    images, texts = (tensor.to(device) for tensor in rows(7))
    torch.manual_seed(3)
    expected_loss = towers.loss(by_pieces(towers.images, images, 3), by_pieces(towers.texts, texts, 3))
    expected_loss.backward()
    expected, next_number = gradients(model), torch.rand(1, device=device)

    torch.manual_seed(3)
    loss = backward(towers.images, towers.texts, images, texts, towers.loss, 3)

    assert_same(gradients(model), expected)
    torch.testing.assert_close(loss, expected_loss.detach())
    assert torch.rand(1, device=device) == next_number  # random numbers go on where the first pass ended
    towers.images(images)
    assert torch.rand(1, device=device) != next_number  # the chances above did draw numbers


def test_a_frozen_tower_is_encoded_once() -> None:
    model = tiny_clip()
    model.visual.requires_grad_(False)
    towers = Towers(model)
    images, texts = rows(7)
    backward(towers.images, towers.texts, images, texts, towers.loss)
    expected = gradients(model)
    towers.image_calls.clear()
    towers.text_calls.clear()

    backward(towers.images, towers.texts, images, texts, towers.loss, 3)

    found = gradients(model)
    assert_same(found, expected)
    assert {name for name, value in found.items() if value is None} == {
        f"visual.{n}" for n, _ in model.visual.named_parameters()
    }
    assert towers.image_calls == [3, 2, 2]
    assert towers.text_calls == [3, 2, 2] * 2


def test_random_numbers_go_on_where_the_first_pass_ended_if_the_last_tower_is_frozen() -> None:
    model = tiny_clip().requires_grad_(False)
    model.visual.requires_grad_(True)
    towers = Towers(model, noise=0.3, dropout=0.3)
    images, texts = rows(5)
    torch.manual_seed(3)
    by_pieces(towers.images, images, 3), by_pieces(towers.texts, texts, 3)
    next_number = torch.rand(1)

    torch.manual_seed(3)
    backward(towers.images, towers.texts, images, texts, towers.loss, 2)

    assert torch.rand(1) == next_number


def test_only_the_first_piece_of_the_first_pass_has_a_graph() -> None:
    towers = Towers(tiny_clip())
    graphs = []

    def encode(pixels: Tensor) -> Tensor:
        graphs.append(torch.is_grad_enabled())
        return towers.images(pixels)

    backward(encode, towers.texts, *rows(7), towers.loss, 3)

    assert graphs == [True, False, False, True, True, True]


def test_with_both_towers_frozen_the_scale_still_learns() -> None:
    model = tiny_clip().requires_grad_(False)
    model.logit_scale.requires_grad_(True)
    towers = Towers(model)
    backward(towers.images, towers.texts, *rows(5), towers.loss)
    expected = model.logit_scale.grad.clone()
    model.logit_scale.grad = None

    backward(towers.images, towers.texts, *rows(5), towers.loss, 2)

    torch.testing.assert_close(model.logit_scale.grad, expected)


def test_pictures_may_have_several_captions() -> None:
    model = tiny_clip()
    towers = Towers(model)
    images, texts = rows(3, 8)
    owner = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])

    def loss_of(images: Tensor, texts: Tensor) -> Tensor:
        return F.cross_entropy(model.logit_scale.exp() * texts @ images.T, owner)

    backward(towers.images, towers.texts, images, texts, loss_of)
    expected = gradients(model)
    towers.image_calls.clear()
    towers.text_calls.clear()

    backward(towers.images, towers.texts, images, texts, loss_of, 5)

    assert_same(gradients(model), expected)
    assert towers.image_calls == [3, 3]  # once in each pass
    assert towers.text_calls == [4, 4, 4, 4]


def test_negatives_that_the_loss_adds_count() -> None:
    model = tiny_clip()
    towers = Towers(model)
    others = F.normalize(torch.randn(2, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), dim=-1)
    sizes = []

    def loss_of(images: Tensor, texts: Tensor) -> Tensor:
        sizes.append((len(images), len(texts)))
        return towers.loss(torch.cat([others[0], images]), torch.cat([others[1], texts]))

    alone = backward(towers.images, towers.texts, *rows(5), towers.loss)
    model.zero_grad()
    whole = backward(towers.images, towers.texts, *rows(5), loss_of)
    expected = gradients(model)

    pieces = backward(towers.images, towers.texts, *rows(5), loss_of, 2)

    assert_same(gradients(model), expected)
    torch.testing.assert_close(pieces, whole)
    assert whole != alone
    assert sizes == [(5, 5), (5, 5)]


class Convolutions(nn.Module):
    """An image tower with BatchNorm, one of which averages over all batches it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, momentum=None)
        )
        self.head = nn.Linear(8, 16)

    def forward(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.head(self.layers(pixels.double() / 255).mean((2, 3))), dim=-1)


def test_running_statistics_are_updated_once() -> None:
    images, texts = rows(7)
    text_tower = tiny_clip()
    towers = Towers(text_tower)
    torch.manual_seed(5)
    reference = Convolutions().double()
    model = Convolutions().double()
    model.load_state_dict(reference.state_dict())
    towers.loss(by_pieces(reference, images, 3), towers.texts(texts)).backward()
    expected = gradients(reference)

    backward(model, towers.texts, images, texts, towers.loss, 3, model=model)

    assert_same(gradients(model), expected)
    torch.testing.assert_close(dict(model.named_buffers()), dict(reference.named_buffers()))
    assert model.layers[1].num_batches_tracked == 3


def test_bf16_under_autocast_gives_nearly_the_same_gradients() -> None:
    model = tiny_clip(torch.float32)
    towers = Towers(model)

    def loss_of(images: Tensor, texts: Tensor) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")
        return clip_loss(EmbeddedBatch(images, texts, model.logit_scale.exp()))

    def lower(encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return torch.autocast("cpu", torch.bfloat16)(encode)

    backward(lower(towers.images), lower(towers.texts), *rows(6), loss_of)
    expected = gradients(model)

    backward(lower(towers.images), lower(towers.texts), *rows(6), loss_of, 2)

    for name, value in gradients(model).items():
        assert (value - expected[name]).norm() <= 0.05 * expected[name].norm() + 1e-4, name


@pytest.mark.parametrize("size", [0, -3])
def test_refuses_pieces_without_rows(size: int) -> None:
    towers = Towers(tiny_clip())

    with pytest.raises(ValueError, match=f"micro_batch_size = {size}: a piece has at least 1 row"):
        backward(towers.images, towers.texts, *rows(4), towers.loss, size)
