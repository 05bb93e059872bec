import math

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss

from attune.losses.batch import EmbeddedBatch, Taught
from attune.losses.contrastive import CONTRASTIVE, clip_loss, ranking_loss, siglip_loss
from attune.losses.make import OURS
from attune.losses.table import LOSSES


def embeddings(batch: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (torch.nn.functional.normalize(torch.randn(batch, dim, generator=generator), dim=-1) for _ in "it")
    return images, texts


def test_every_loss_that_settings_accept_exists() -> None:
    assert set(OURS) == {name for name, kind in LOSSES.items() if kind.ours}


def uneven_batch(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """4 pictures with 1, 3, 2 and 1 captions, and some pairs, positive ones among them, that are to be ignored."""
    images, texts = embeddings(7, 5, seed)[0][:4], embeddings(7, 5, seed)[1]
    positives = torch.tensor([0, 1, 1, 1, 2, 2, 3]) == torch.arange(4)[:, None]
    ignored = torch.rand(4, 7, generator=torch.Generator().manual_seed(seed)) < 0.4
    return images, texts, positives, ignored


def softmax_by_hand(logits: list[list[float]], positives: list[list[bool]], counted: list[list[bool]]) -> float:
    """L_out of arXiv:2004.11362 for each row, pair by pair; the mean over the rows."""
    total = 0.0
    for row, right, seen in zip(logits, positives, counted, strict=True):
        denominator = sum(math.exp(value) for value, yes in zip(row, seen, strict=True) if yes)
        terms = [-math.log(math.exp(value) / denominator) for value, yes in zip(row, right, strict=True) if yes]
        total += sum(terms) / len(terms)
    return total / len(logits)


@pytest.mark.parametrize("batch", [2, 5, 16])
@pytest.mark.parametrize("dim", [3, 32])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_equals_open_clips_loss(batch: int, dim: int, scale: float) -> None:
    images, texts = embeddings(batch, dim, seed=batch * dim)

    expected = ClipLoss()(images, texts, torch.tensor(scale))

    torch.testing.assert_close(clip_loss(EmbeddedBatch(images, texts, torch.tensor(scale))), expected)


@pytest.mark.parametrize("batch", [2, 16])
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("bias", [0.0, -10.0])
def test_equals_open_clips_sigmoid_loss(batch: int, scale: float, bias: float) -> None:
    images, texts = embeddings(batch, 8, seed=batch)

    expected = SigLipLoss()(images, texts, torch.tensor(scale), torch.tensor(bias))

    torch.testing.assert_close(siglip_loss(EmbeddedBatch(images, texts, torch.tensor(scale), torch.tensor(bias))), expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("with_ignored", [False, True])
def test_several_captions_a_picture_are_all_right_answers(seed: int, with_ignored: bool) -> None:
    images, texts, positives, ignored = uneven_batch(seed)
    scale = torch.tensor(7.0)

    loss = clip_loss(EmbeddedBatch(images, texts, scale, positives=positives, ignored=ignored if with_ignored else None))

    logits = 7 * images.double() @ texts.double().T
    counted = positives | ~ignored if with_ignored else torch.ones_like(positives)
    rows = softmax_by_hand(logits.tolist(), positives.tolist(), counted.tolist())
    columns = softmax_by_hand(logits.T.tolist(), positives.T.tolist(), counted.T.tolist())
    assert loss.item() == pytest.approx((rows + columns) / 2, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("with_ignored", [False, True])
def test_the_sigmoid_loss_asks_of_each_pair_alone(seed: int, with_ignored: bool) -> None:
    images, texts, positives, ignored = uneven_batch(seed)
    scale, bias = torch.tensor(7.0), torch.tensor(-3.0)

    loss = siglip_loss(EmbeddedBatch(images, texts, scale, bias, positives, ignored if with_ignored else None))

    total = 0.0
    for i in range(4):
        for j in range(7):
            if positives[i, j] or not (with_ignored and ignored[i, j]):
                logit = 7 * float(images[i].double() @ texts[j].double()) - 3
                total += math.log(1 + math.exp(-logit if positives[i, j] else logit))
    assert loss.item() == pytest.approx(total / 4, rel=1e-5)


def test_two_captions_of_one_picture_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    loss = clip_loss(EmbeddedBatch(images, texts, torch.tensor(1.0), positives=torch.tensor([[True, True]])))

    # logits [1, 0]. Image to text: mean of -1 + ln(e + 1) and -0 + ln(e + 1). Text to image: one picture, so 0.
    assert loss.item() == pytest.approx((math.log(math.e + 1) - 0.5) / 2, abs=1e-6)


@pytest.mark.parametrize("name", ["CLIPLoss", "SigLIPLoss"])
def test_a_picture_that_is_left_with_nothing_but_its_own_caption_learns_nothing_wrong(name: str) -> None:
    images, texts = (each.requires_grad_() for each in embeddings(5, 4, seed=4))
    scale, bias = torch.tensor(100.0, requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    ignored = torch.ones(5, 5, dtype=torch.bool)  # its own caption too, which must not count

    loss = CONTRASTIVE[name](EmbeddedBatch(images, texts, scale, bias, None, ignored))
    loss.backward()

    own = (images * texts).sum(1).detach()
    expected = torch.nn.functional.softplus(10 - 100 * own).mean().item() if name == "SigLIPLoss" else 0.0
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    for leaf in (images, texts, scale, *([bias] if name == "SigLIPLoss" else [])):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    if name == "CLIPLoss":
        assert images.grad is not None
        assert images.grad.abs().max() < 1e-6


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
@pytest.mark.parametrize("with_ignored", [False, True])
def test_a_share_of_the_target_is_what_the_teacher_finds(share: float, with_ignored: bool) -> None:
    images, texts, positives, ignored = uneven_batch(3)
    own, its = (scale * images.double() @ texts.double().T for scale in (7, 4))
    batch = EmbeddedBatch(images, texts, torch.tensor(7.0), None, positives, ignored if with_ignored else None)

    loss = clip_loss(batch._replace(taught=Taught(its.float(), share)))

    counted = positives | ~ignored if with_ignored else torch.ones_like(positives)
    ways = []
    for found, taught, right, seen in ((own, its, positives, counted), (own.T, its.T, positives.T, counted.T)):
        rows = []
        for row in range(len(found)):
            there = seen[row]
            surprise = -found[row][there].log_softmax(0)
            target = share * taught[row][there].softmax(0) + (1 - share) * right[row][there] / right[row].sum()
            rows.append((target * surprise).sum().item())
        ways.append(sum(rows) / len(rows))
    assert loss.item() == pytest.approx(sum(ways) / 2, rel=1e-5)


def test_a_text_of_no_picture_is_not_taught() -> None:
    images, texts = embeddings(3, 4, seed=8)
    positives = torch.tensor([[True, False, False], [False, True, False]])
    batch = EmbeddedBatch(images[:2], texts, torch.tensor(5.0), positives=positives)

    taught = clip_loss(batch._replace(taught=Taught(batch.similarities(5.0), 0.5)))

    # Of what a teacher finds that is as good as the weights, the surprise is the entropy; the third text asks nothing.
    logits = 5 * images[:2] @ texts.T
    expected = []
    for found in (logits, logits.T[:2]):
        surprise = -found.log_softmax(1)
        expected.append((0.5 * surprise.diagonal() + 0.5 * (surprise * (-surprise).exp()).sum(1)).mean())
    torch.testing.assert_close(taught, sum(expected) / 2)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_is_that_of_torch(smoothing: float) -> None:
    images, texts = embeddings(6, 4, seed=5)
    logits, target = 9 * images @ texts.T, torch.arange(6)

    loss = clip_loss(EmbeddedBatch(images, texts, torch.tensor(9.0)), label_smoothing=smoothing)

    expected = [torch.nn.functional.cross_entropy(each, target, label_smoothing=smoothing) for each in (logits, logits.T)]
    torch.testing.assert_close(loss, sum(expected) / 2)


def test_smoothing_leaves_ignored_pairs_alone() -> None:
    images, texts = embeddings(4, 4, seed=7)
    ignored = torch.zeros(4, 4, dtype=torch.bool)
    ignored[:3, 3] = ignored[3, :3] = True  # the last pair and the others do not meet

    loss = clip_loss(EmbeddedBatch(images, texts, torch.tensor(9.0), ignored=ignored), label_smoothing=0.2)

    three = clip_loss(EmbeddedBatch(images[:3], texts[:3], torch.tensor(9.0)), label_smoothing=0.2)
    torch.testing.assert_close(loss, three * 3 / 4)  # the last pair's own loss is 0


def test_captions_without_a_word_on_whose_they_are_are_refused() -> None:
    images, texts, _, _ = uneven_batch(0)
    with pytest.raises(ValueError, match="4 pictures and 7 captions: which belong together"):
        clip_loss(EmbeddedBatch(images, texts, torch.tensor(1.0)))


def test_the_sigmoid_loss_refuses_a_model_without_a_bias() -> None:
    with pytest.raises(ValueError, match="logit_bias, and this model has none. Use CLIPLoss"):
        siglip_loss(EmbeddedBatch(*embeddings(2, 2, seed=0), torch.tensor(1.0)))


def test_equals_a_hand_computed_value() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])

    loss = clip_loss(EmbeddedBatch(images, texts, torch.tensor(2.0)))

    # logits = 2 x images @ texts.T = [[2, 1.2], [0, 1.6]]
    # image to text, by rows:    -2 + ln(e^2 + e^1.2), -1.6 + ln(e^0 + e^1.6)
    # text to image, by columns: -2 + ln(e^2 + e^0),   -1.6 + ln(e^1.2 + e^1.6)
    e = math.exp
    rows = -2 + math.log(e(2) + e(1.2)) - 1.6 + math.log(e(0) + e(1.6))
    columns = -2 + math.log(e(2) + e(0)) - 1.6 + math.log(e(1.2) + e(1.6))
    assert loss.item() == pytest.approx((rows / 2 + columns / 2) / 2, abs=1e-6)


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_is_the_logarithm_of_the_batch_if_nothing_is_told_apart(batch: int) -> None:
    same = torch.nn.functional.normalize(torch.ones(batch, 8), dim=-1)

    assert clip_loss(EmbeddedBatch(same, same, torch.tensor(50.0))).item() == pytest.approx(math.log(batch), abs=1e-5)


def test_does_not_care_which_tower_is_which_nor_in_which_order_pairs_come() -> None:
    images, texts = embeddings(9, 4, seed=1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    scale = torch.tensor(10.0)

    loss = clip_loss(EmbeddedBatch(images, texts, scale))

    torch.testing.assert_close(clip_loss(EmbeddedBatch(texts, images, scale)), loss)
    torch.testing.assert_close(clip_loss(EmbeddedBatch(images[order], texts[order], scale)), loss)


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("autocast", [False, True])
def test_computes_in_float32_whatever_comes_in(name: str, autocast: bool) -> None:
    images, texts = embeddings(8, 16, seed=3)
    half = images.bfloat16(), texts.bfloat16()
    scale, bias = torch.tensor(99.5, dtype=torch.bfloat16), torch.tensor(-10.0, dtype=torch.bfloat16)

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = CONTRASTIVE[name](EmbeddedBatch(*half, scale, bias))

    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, CONTRASTIVE[name](EmbeddedBatch(half[0].float(), half[1].float(), scale.float(), bias.float()))
    )


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_is_clips_softmax_from_pictures_alone_or_both_ways(symmetric: bool, seed: int) -> None:
    images, texts, positives, ignored = uneven_batch(seed)
    counted = positives | ~ignored
    logits = 7.0 * images @ texts.T
    wanted = softmax_by_hand(logits.tolist(), positives.tolist(), counted.tolist())
    if symmetric:
        wanted = (wanted + softmax_by_hand(logits.T.tolist(), positives.T.tolist(), counted.T.tolist())) / 2

    found = ranking_loss(
        EmbeddedBatch(images, texts, torch.tensor(1.0), positives=positives, ignored=ignored), scale=7.0, symmetric=symmetric
    )

    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_a_model_that_tells_nothing_apart_ranks_at_chance() -> None:
    images = torch.ones(4, 3) / math.sqrt(3)

    assert ranking_loss(EmbeddedBatch(images, images, torch.tensor(1.0))).item() == pytest.approx(math.log(4))


def with_negatives(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """3 pictures with a caption each, and two texts that belong to none, among them."""
    images, texts = embeddings(5, 4, seed)
    owners = torch.tensor([0, -1, 1, 2, -1])
    return images[:3], texts, owners == torch.arange(3)[:, None]


def test_a_text_of_no_picture_is_a_wrong_answer_and_looks_for_nothing() -> None:
    images, texts, positives = with_negatives()
    logits = (10.0 * images @ texts.T).tolist()
    everything = [[True] * 5] * 3
    columns = [list(column) for column in zip(*logits, strict=True)]
    to_text = softmax_by_hand(logits, positives.tolist(), everything)
    captions = [0, 2, 3]
    to_image = softmax_by_hand([columns[j] for j in captions], positives.T[captions].tolist(), [[True] * 3] * 3)

    found = clip_loss(EmbeddedBatch(images, texts, torch.tensor(10.0), positives=positives))

    assert found.item() == pytest.approx((to_text + to_image) / 2, rel=1e-5)


def test_smoothing_takes_nothing_from_texts_of_no_picture() -> None:
    images, texts, positives = with_negatives()
    found = clip_loss(EmbeddedBatch(images, texts, torch.tensor(10.0), positives=positives), label_smoothing=0.2)
    captions = positives.any(0)
    to_image = torch.nn.functional.cross_entropy((10.0 * texts @ images.T)[captions], torch.arange(3), label_smoothing=0.2)
    to_text = torch.nn.functional.cross_entropy(10.0 * images @ texts.T, torch.tensor([0, 2, 3]), label_smoothing=0.2)

    torch.testing.assert_close(found, (to_text + to_image) / 2)
