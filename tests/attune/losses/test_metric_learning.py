import copy
import inspect
import math
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses, miners
from torch import nn

from attune.config import check_settings
from attune.errors import SettingsError
from attune.losses.batch import EmbeddedBatch, Loss
from attune.losses.contrastive import clip_loss
from attune.losses.make import Scope, make_loss
from attune.losses.table import (
    ALIASES,
    LOSSES,
    MINERS,
    REFUSED_LOSSES,
    REFUSED_MINERS,
    check_loss,
    check_miner,
    has_weights,
    parts_of,
)

OPTIONS: dict[str, Any] = {
    "RankedListLoss": {"margin": 0.4, "Tn": 1, "Tp": 1},
    "SoftTripleLoss": {"centers_per_class": 1},
    "SubCenterArcFaceLoss": {"sub_centers": 1},
    "MultipleLosses": {"losses": ["CLIPLoss", {"name": "IntraPairVarianceLoss", "pos_eps": 0.1}], "weights": [1, 0.5]},
    "CrossBatchMemory": {"loss": {"name": "TripletMarginLoss", "margin": 0.1}, "memory_size": 20},
}
PICKERS = [name for name, kind in LOSSES.items() if kind.picks and name != "MultipleLosses"]
SCORED = [name for name, kind in LOSSES.items() if kind.data]
CLASSED = [name for name, kind in LOSSES.items() if kind.classes]
PAIRED = [name for name in LOSSES if name not in (*CLASSED, *SCORED, "IntraPairVarianceLoss")]  # the last is for company
NEGATIVES = [name for name in PAIRED if LOSSES[name].negatives]
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # in the library's HistogramLoss
SCALE, BIAS = torch.tensor(10.0), torch.tensor(-10.0)


def embeddings(pictures: int = 12, captions: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, texts = (nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in (pictures, captions))
    return images.requires_grad_(), texts.requires_grad_()


def classes_in(module: Any) -> set[str]:
    return {name for name, found in vars(module).items() if inspect.isclass(found) and issubclass(found, nn.Module)}


def test_each_class_of_the_library_is_either_there_or_refused_with_a_reason() -> None:
    ours = {name for name, kind in LOSSES.items() if kind.ours}

    assert classes_in(losses) <= (set(LOSSES) - ours) | set(REFUSED_LOSSES)
    assert set(LOSSES) - ours <= classes_in(losses)
    assert classes_in(miners) <= set(MINERS) | set(REFUSED_MINERS)
    assert set(MINERS) <= classes_in(miners)
    assert not set(LOSSES) & set(REFUSED_LOSSES)
    assert set(ALIASES.values()) <= set(LOSSES)


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("captions", [1, 3])
def test_every_loss_brings_pairs_together(name: str, captions: int) -> None:
    """Two kinds of items, far apart at first, with nothing but this loss to bring those that belong together near."""
    if LOSSES[name].one_each and captions > 1:
        pytest.skip("takes one caption a picture")
    torch.manual_seed(0)
    pictures, texts = (torch.randn(n, 8, requires_grad=True) for n in (8, 8 * captions))
    owners = torch.arange(8).repeat_interleave(captions)
    positives = None if captions == 1 else owners == torch.arange(8)[:, None]
    loss = make_loss(name, OPTIONS.get(name, {}), scope=Scope(2, 8))
    optimizer = torch.optim.Adam([pictures, texts], 0.05)

    def step() -> float:
        optimizer.zero_grad()
        found = loss(
            EmbeddedBatch(*(nn.functional.normalize(each, dim=-1) for each in (pictures, texts)), SCALE, BIAS, positives)
        )
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return found.item()

    def found_first() -> float:
        with torch.no_grad():
            similar = nn.functional.normalize(pictures, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
        return (similar.argmax(0) == owners).float().mean().item()

    before = found_first()
    values = [step() for _ in range(150)]

    assert all(map(math.isfinite, values))
    assert found_first() >= max(0.9, before + 0.3)


@pytest.mark.parametrize("name", CLASSED)
@pytest.mark.parametrize("captions", [1, 3])
def test_every_loss_over_classes_brings_classes_together(name: str, captions: int) -> None:
    """Three classes of four pictures, and their captions: at first as far from their own as from others."""
    torch.manual_seed(0)
    pictures, texts = (torch.randn(n, 8, requires_grad=True) for n in (12, 12 * captions))
    classes = torch.arange(12) // 4
    owners = torch.arange(12).repeat_interleave(captions)
    loss = make_loss(name, OPTIONS.get(name, {}), scope=Scope(3, 8))
    assert isinstance(loss, nn.Module)
    optimizer = torch.optim.Adam([pictures, texts, *loss.parameters()], 0.05)

    def nearness() -> float:
        """Mean similarity of items of one class, less that of items of different ones."""
        with torch.no_grad():
            items = nn.functional.normalize(torch.cat([pictures, texts]), dim=-1)
        labels = torch.cat([classes, classes[owners]])
        same, similar = labels[:, None] == labels, items @ items.T
        return (similar[same & ~torch.eye(len(items), dtype=torch.bool)].mean() - similar[~same].mean()).item()

    before = nearness()
    for _ in range(150):
        optimizer.zero_grad()
        order = torch.randperm(12)  # some look at the first items of each class alone
        images, captions_of = (nn.functional.normalize(each, dim=-1) for each in (pictures[order], texts))
        found = loss(EmbeddedBatch(images, captions_of, SCALE, BIAS, owners == order[:, None], None, classes[order]))
        found.backward()
        optimizer.step()
        assert found.isfinite()

    assert nearness() > before + 0.1


@pytest.mark.parametrize("name", CLASSED)
def test_the_weights_of_a_loss_are_kept_and_put_back(name: str) -> None:
    options, scope = OPTIONS.get(name, {}), Scope(3, 8)
    classes = torch.arange(12) // 4
    first, other = (make_loss(name, options, scope=scope) for _ in range(2))
    assert isinstance(first, nn.Module)
    assert isinstance(other, nn.Module)

    other.load_state_dict(first.state_dict())

    torch.manual_seed(1)
    found = first(EmbeddedBatch(*embeddings(), SCALE, BIAS, None, None, classes))
    torch.manual_seed(1)
    assert other(EmbeddedBatch(*embeddings(), SCALE, BIAS, None, None, classes)).item() == found.item()


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", PICKERS)
def test_every_miner_serves_every_loss_that_picks(name: str, miner: str) -> None:
    images, texts = embeddings()
    ignored = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.1
    torch.manual_seed(0)

    for _ in range(2):
        loss = make_loss(name, OPTIONS.get(name, {}), miner, {}, Scope(2, 8))
        value = loss(EmbeddedBatch(images, texts, SCALE, None, None, ignored))
        value.backward()  # type: ignore[no-untyped-call]

    for leaf in (images, texts):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("miner", MINERS)
def test_every_miner_finds_something_in_a_batch(miner: str) -> None:
    images, texts = embeddings()
    torch.manual_seed(0)

    make_loss("ContrastiveLoss", {}, miner, {})(EmbeddedBatch(images, texts, SCALE)).backward()  # type: ignore[no-untyped-call]

    assert images.grad is not None
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("name", ["NTXentLoss", "SupConLoss"])
@pytest.mark.parametrize("masked", [False, True])
def test_the_temperature_losses_are_clips_where_each_picture_has_one_caption(name: str, masked: bool) -> None:
    images, texts = embeddings()
    ignored = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.3 if masked else None

    found = make_loss(name, {"temperature": 0.1})(EmbeddedBatch(images, texts, torch.tensor(1.0), None, None, ignored))

    torch.testing.assert_close(found, clip_loss(EmbeddedBatch(images, texts, SCALE, ignored=ignored)))


def test_supervised_contrast_is_clips_with_several_captions() -> None:
    images, texts = embeddings(5, 11)
    positives = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4]) == torch.arange(5)[:, None]

    found = make_loss("SupConLoss", {"temperature": 0.1})(EmbeddedBatch(images, texts, SCALE, None, positives))

    torch.testing.assert_close(found, clip_loss(EmbeddedBatch(images, texts, SCALE, positives=positives)))


def triplets_by_hand(images: torch.Tensor, texts: torch.Tensor, ignored: torch.Tensor, margin: float) -> float:
    total = []
    for queries, answers, left_out in ((images, texts, ignored), (texts, images, ignored.T)):
        costs = [
            (queries[i] - answers[i]).norm().item() - (queries[i] - answers[j]).norm().item() + margin
            for i in range(len(queries))
            for j in range(len(answers))
            if i != j and not left_out[i, j]
        ]
        above = [cost for cost in costs if cost > 0]
        total.append(sum(above) / len(above))
    return sum(total) / 2


@pytest.mark.parametrize("miner", [None, "TripletMarginMiner"])
def test_triplets_leave_out_what_is_no_negative(miner: str | None) -> None:
    images, texts = (each.detach() for each in embeddings(6, 6))
    ignored = torch.zeros(6, 6, dtype=torch.bool)
    ignored[0, 3] = ignored[3, 0] = ignored[2, 5] = ignored[1, 4] = True
    options = {"margin": 0.3}

    found = make_loss("TripletMarginLoss", options, miner, options if miner else None)(
        EmbeddedBatch(images, texts, SCALE, None, None, ignored)
    )

    assert found.item() == pytest.approx(triplets_by_hand(images, texts, ignored, 0.3), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    images, texts = (each.detach().bfloat16() for each in embeddings())
    loss: Loss = make_loss(name, OPTIONS.get(name, {}), scope=Scope(3, 8))

    classes = torch.arange(12) // 4
    same = copy.deepcopy(loss)  # with the same weights, if it has any
    positives, scores = torch.eye(12, dtype=torch.bool), None
    if LOSSES[name].data:
        scores = torch.full((12, 12), math.nan)
        scores[positives] = torch.linspace(0, 1, 12)
    if LOSSES[name].data == "margin":  # every third text is a negative of the first picture
        positives[:, ::3] = False
        positives[0, 1] = True
        scores = torch.where(positives, 0.0, math.nan)
        scores[0, ::3] = -0.5

    with torch.autocast("cpu", torch.bfloat16):
        found = loss(EmbeddedBatch(images, texts, SCALE, BIAS, positives, None, classes, scores))

    torch.testing.assert_close(
        found, same(EmbeddedBatch(images.float(), texts.float(), SCALE, BIAS, positives, None, classes, scores))
    )
    assert found.isfinite()


def test_a_running_histogram_goes_on_where_it_was() -> None:
    first, second = embeddings(seed=1), embeddings(seed=2)
    unbroken, before, resumed = (make_loss("DynamicSoftMarginLoss", {}) for _ in range(3))
    assert isinstance(before, nn.Module)
    assert isinstance(resumed, nn.Module)

    unbroken(EmbeddedBatch(*first, SCALE))
    before(EmbeddedBatch(*first, SCALE))
    resumed.load_state_dict(before.state_dict())

    assert resumed(EmbeddedBatch(*second, SCALE)).item() == unbroken(EmbeddedBatch(*second, SCALE)).item()
    assert (
        resumed(EmbeddedBatch(*second, SCALE)).item()
        != make_loss("DynamicSoftMarginLoss", {})(EmbeddedBatch(*second, SCALE)).item()
    )


def test_the_running_histogram_takes_the_worst_of_pairs() -> None:
    images = torch.eye(2)

    found = make_loss("DynamicSoftMarginLoss", {})(EmbeddedBatch(images, -images.flip(0) - images * 0.99, SCALE))

    assert found.isfinite()


def test_the_running_histogram_counts_what_is_trained_on_alone() -> None:
    """Not what is only tried before the first step, and no numbers that are none."""
    loss, (images, texts) = make_loss("DynamicSoftMarginLoss", {}), embeddings()
    assert isinstance(loss, nn.Module)
    loss(EmbeddedBatch(images, texts, SCALE))
    kept = loss.state_dict()["loss.hist_"].clone()

    broken = loss(EmbeddedBatch(images * math.nan, texts, SCALE))
    loss.eval()
    tried = loss(EmbeddedBatch(*embeddings(seed=1), SCALE))

    assert broken.isnan()  # as the guards want to hear it
    assert tried.isfinite()
    assert torch.equal(loss.state_dict()["loss.hist_"], kept)


def test_several_losses_are_their_weighted_sum() -> None:
    images, texts = embeddings()
    miner = ("TripletMarginMiner", {"margin": 0.3})
    options = {"losses": ["CLIPLoss", {"name": "TripletMarginLoss", "margin": 0.3}], "weights": [1, 0.5]}

    both = make_loss("MultipleLosses", options, *miner)(EmbeddedBatch(images, texts, SCALE))

    one, other = (
        clip_loss(EmbeddedBatch(images, texts, SCALE)),
        make_loss("TripletMarginLoss", {"margin": 0.3}, *miner)(EmbeddedBatch(images, texts, SCALE)),
    )
    torch.testing.assert_close(both, one + 0.5 * other)


def test_several_losses_keep_the_state_of_each() -> None:
    options = {"losses": ["CLIPLoss", "DynamicSoftMarginLoss"]}
    before, after = (make_loss("MultipleLosses", options) for _ in range(2))
    assert isinstance(before, nn.Module)
    assert isinstance(after, nn.Module)

    before(EmbeddedBatch(*embeddings(seed=1), SCALE))
    after.load_state_dict(before.state_dict())

    assert (
        after(EmbeddedBatch(*embeddings(seed=2), SCALE)).item() == before(EmbeddedBatch(*embeddings(seed=2), SCALE)).item()
    )


def test_parts_have_options_of_their_own() -> None:
    options = {
        "margin": 0.2,
        "distance": {"name": "LpDistance", "p": 1},
        "reducer": {"name": "MultipleReducers", "reducers": {"loss": {"name": "ThresholdReducer", "low": 0.1}}},
        "embedding_regularizer": "LpRegularizer",
    }

    loss = make_loss("TripletMarginLoss", options)

    assert isinstance(loss, nn.Module)
    made: Any = loss.loss
    assert (made.margin, made.distance.p, made.reducer.reducers["loss"].low) == (0.2, 1, 0.1)
    assert type(made.embedding_regularizer).__name__ == "LpRegularizer"
    assert loss(EmbeddedBatch(*embeddings(), SCALE)).isfinite()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("TripletMarginLoss", {"margn": 1}, "takes no 'margn' (did you mean 'margin'?). Its options are: margin = 0.05"),
        ("TripletMarginLoss", {"distance": "Euclid"}, "loss_options.distance = 'Euclid' is not known"),
        ("TripletMarginLoss", {"distance": {"p": 2}}, "Give a name, or a name with options"),
        (
            "TripletMarginLoss",
            {"distance": {"name": "LpDistance", "q": 1}},
            "loss_options.distance: LpDistance takes no 'q'",
        ),
        ("TupletMarginLoss", {"distance": "LpDistance"}, "cannot be used with TupletMarginLoss"),
        ("CLIPLoss", {"temperature": 1}, "Its options are: label_smoothing = 0.0"),
        ("CLIPLoss", {"label_smoothing": "much"}, "give a number from 0 to 0.999"),
        ("SigLIPLoss", {"label_smoothing": 0.1}, "Its options are: none"),
        ("MultipleNegativesRankingLoss", {"scale": 0}, "loss_options.scale = 0: give a number from 1e-06 to 10,000"),
        ("MultipleNegativesRankingLoss", {"symmetric": 1}, "loss_options.symmetric = 1: give true or false"),
        ("MultipleNegativesRankingLoss", {"similarity": "dot"}, "Its options are: scale = 20.0, symmetric = False"),
        ("CoSENTLoss", {"scale": True}, "loss_options.scale = True: give a number from"),
        ("CrossBatchMemory", {}, "loss_options.loss = None: give the name of a loss, or a name with options such as"),
        ("CrossBatchMemory", {"loss": {"margin": 1}}, "or a name with options"),
        ("CrossBatchMemory", {"loss": "CLIPLoss"}, "CLIPLoss cannot look at what batches before held. Use one of: Angular"),
        ("CrossBatchMemory", {"loss": "Triplet"}, "loss_options.loss: 'Triplet' is not known"),
        ("CrossBatchMemory", {"loss": "CircleLoss", "memory_size": 0}, "memory_size = 0: give a whole number from 1"),
        ("CrossBatchMemory", {"loss": "CircleLoss", "size": 9}, "Its options are: loss = required, memory_size = 1024"),
        ("CrossBatchMemory", {"loss": {"name": "CircleLoss", "n": 1}}, "CircleLoss takes no 'n'"),
        ("MultipleLosses", {}, "takes `losses`, a list of names"),
        ("MultipleLosses", {"losses": [1]}, "loss_options.losses = 1: give the name of a loss, or a name with options"),
        ("MultipleLosses", {"losses": ["CLIPLoss"], "weight": 1}, "takes no 'weight' (did you mean 'weights'?)"),
        ("MultipleLosses", {"losses": ["CLIPLoss"], "weights": [1, 2]}, "for each of the 1 losses"),
        ("MultipleLosses", {"losses": ["Triplet"]}, "loss_options.losses: 'Triplet' is not known"),
        ("MultipleLosses", {"losses": ["MultipleLosses"]}, "Name all losses in one list"),
        ("MultipleLosses", {"losses": [{"name": "CircleLoss", "n": 1}]}, "CircleLoss takes no 'n'"),
    ],
)
def test_what_a_loss_does_not_take_is_said(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        make_loss(name, options)

    assert says in str(caught.value)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("MultipleLosses", "CrossBatchMemory")])
def test_the_table_says_what_a_loss_learns_and_leaves_out(name: str) -> None:
    kind, options = LOSSES[name], OPTIONS.get(name, {})
    loss = make_loss(name, options, scope=Scope(3, 8))
    images, texts = embeddings()
    scale = SCALE.clone().requires_grad_()
    scores, positives = None, None
    if kind.data:
        scores = torch.full((12, 12), math.nan).fill_diagonal_(0.5)
        positives = torch.eye(12, dtype=torch.bool)
        if kind.data == "margin":
            positives[-1, -1], positives[-1, 0] = False, True
            scores[-1, 0] = 0
    given = EmbeddedBatch(images, texts, scale, BIAS, positives, None, torch.arange(12) // 4, scores)
    others = ~torch.eye(12, dtype=torch.bool)
    others[0] = False  # the first picture is left with its negatives

    found = loss(given)
    found.backward()  # type: ignore[no-untyped-call]

    assert has_weights(name, options) == (isinstance(loss, nn.Module) and any(True for _ in loss.parameters()))
    assert kind.scaled == (scale.grad is not None)
    again = make_loss(name, options, scope=Scope(3, 8)) if not has_weights(name, options) else loss
    assert (kind.picks or kind.masks) == (again(given._replace(ignored=others)) != found)


def test_a_loss_is_known_by_what_it_is_made_of() -> None:
    inner = {"name": "CrossBatchMemory", "loss": {"name": "MarginLoss", "learn_beta": True}}
    options = {"losses": ["ClipLoss", inner, 3, {"margin": 1}]}

    assert [part.name for part in parts_of("MultipleLosses", options)] == ["CLIPLoss", "MarginLoss"]
    assert has_weights("MultipleLosses", options)
    assert not has_weights("MultipleLosses", {"losses": ["CLIPLoss", "FastAPLoss"]})
    assert parts_of("CrossBatchMemory", {}) == parts_of("MultipleLosses", {"losses": 1}) == parts_of("auto", {}) == []


@pytest.mark.parametrize("name", [*REFUSED_LOSSES, "Nonsense", "cliploss"])
def test_other_losses_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="Use one of: CLIPLoss, SigLIPLoss, MultipleNegativesRankingLoss"):
        check_loss(name)


@pytest.mark.parametrize("name", [*REFUSED_MINERS, "Nonsense"])
def test_other_miners_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match="Use one of: AngularMiner"):
        check_miner(name)


@pytest.mark.parametrize(("given", "meant"), ALIASES.items())
def test_other_spellings_are_understood(given: str, meant: str) -> None:
    assert check_settings({"model": "starter", "train_data": "data", "loss": given}).loss == meant


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"miner": "BatchHardMiner"}, "loss = 'auto' looks at all of a batch"),
        ({"loss": "CLIPLoss", "miner": "BatchHardMiner"}, "use one of: CircleLoss, ContrastiveLoss"),
        ({"loss": "TripletMarginLoss", "miner_options": {"margin": 1}}, "no miner. Name one"),
        ({"loss_options": {"margin": 1}}, "Name the loss that they are for"),
        ({"loss": "VICRegLoss", "multi_positive": True}, "takes one caption a picture"),
        ({"loss": "InstanceLoss"}, "for a place in the batch"),
        (
            {"loss": "MultipleLosses", "loss_options": {"losses": ["VICRegLoss", "CLIPLoss"]}, "multi_positive": True},
            "takes one caption a picture",
        ),
        (
            {"loss": "MultipleLosses", "loss_options": {"losses": ["CLIPLoss", "NCALoss"]}, "miner": "BatchHardMiner"},
            "loss = 'MultipleLosses' looks at all of a batch",
        ),
        (
            {"loss": "CrossBatchMemory", "loss_options": {"loss": "AngularLoss"}, "miner": "BatchHardMiner"},
            "loss = 'CrossBatchMemory' looks at all of a batch",
        ),
        ({"sampler": "class", "hard_negatives": 0.5}, "two ways to choose which pictures meet"),
        ({"sampler": "class", "images_per_epoch": 10}, "passes over all pictures"),
        ({"loss_optimizer": "LBFGS"}, "computes the loss of one batch many times a step"),
    ],
)
def test_what_does_not_fit_together_is_said(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_settings({"model": "starter", "train_data": "data", **settings})

    assert says in str(caught.value)


def test_options_may_be_as_deep_as_losses_have_parts() -> None:
    reducer = {"name": "MultipleReducers", "reducers": {"loss": {"name": "ThresholdReducer", "low": 0}}}
    options = {"losses": ["CLIPLoss", {"name": "TripletMarginLoss", "reducer": reducer}]}

    settings = check_settings({"model": "starter", "train_data": "data", "loss": "MultipleLosses", "loss_options": options})

    assert make_loss(settings.loss, settings.loss_options)(EmbeddedBatch(*embeddings(), SCALE)).isfinite()


@pytest.mark.parametrize("name", NEGATIVES)
def test_every_loss_pushes_negatives_away_that_come_with_the_data(name: str) -> None:
    """Pictures that are nearer to a text of nobody's than to their own caption, and find that again."""
    torch.manual_seed(0)
    pictures = torch.randn(8, 8, requires_grad=True)
    captions, negatives = torch.randn(8, 8), pictures.detach() + 0.1 * torch.randn(8, 8)
    texts = torch.stack([captions, negatives], 1).flatten(0, 1).requires_grad_()  # a caption, a negative, and so on
    positives = torch.arange(16) == 2 * torch.arange(8)[:, None]
    loss = make_loss(name, OPTIONS.get(name, {}), scope=Scope(2, 8))
    optimizer = torch.optim.Adam([pictures, texts], 0.05)

    for _ in range(150):
        optimizer.zero_grad()
        found = loss(
            EmbeddedBatch(*(nn.functional.normalize(each, dim=-1) for each in (pictures, texts)), SCALE, BIAS, positives)
        )
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        assert found.isfinite()

    similar = nn.functional.normalize(pictures, dim=-1) @ nn.functional.normalize(texts, dim=-1).T
    assert (similar.argmax(1) == 2 * torch.arange(8)).float().mean() >= 0.9


def test_a_negative_is_no_query_of_a_metric_loss() -> None:
    images, texts = (each.detach() for each in embeddings(3, 5))
    owners = torch.tensor([0, -1, 1, 2, -1])
    positives = owners == torch.arange(3)[:, None]
    captions = positives.any(0)

    found = make_loss("ContrastiveLoss", {"neg_margin": 3})(EmbeddedBatch(images, texts, SCALE, None, positives))

    distances = torch.cdist(images, texts)
    right, wrong = distances[positives].mean(), 3 - distances[~positives]
    backwards = 3 - distances[:, captions][~positives[:, captions]]
    torch.testing.assert_close(found, right + (wrong.mean() + backwards.mean()) / 2)
