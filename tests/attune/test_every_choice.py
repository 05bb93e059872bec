"""Every name of every table of choices: two steps on tiny data, saved, put back, and on from there to the last bit.

A name that resolves to nothing, gives gradients that are no numbers or does not come back as it was fails here.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attune.config import check_settings
from attune.errors import TrainingStopped
from attune.losses.batch import EmbeddedBatch
from attune.losses.cross_batch_memory import remember
from attune.losses.make import Scope, make_loss
from attune.losses.parts import PARTS
from attune.losses.table import ALONE, LOSSES, MINERS
from attune.models.clip import load_clip, load_folder
from attune.models.pooling import POOLERS
from attune.models.text import encode_text
from attune.optimizers import OPTIMIZERS
from attune.schemas import DatasetReport
from attune.settings import SCHEDULERS, FinetuningSettings, ModelOptions
from attune.stages import run_stage
from attune.training.fit import fit
from attune.training.job import prepare
from attune.training.optimizer import make_loss_optimizer, make_optimizer, set_learning_rate
from attune.training.recipe import choose_recipe
from attune.training.step import backward
from tests.attune.sentences import save_sentence
from tests.attune.test_recipe import of_groups
from tests.attune.trained import start
from tests.conftest import labelled_examples

LOSS_OPTIONS: dict[str, Any] = {
    "RankedListLoss": {"margin": 0.4, "Tn": 1, "Tp": 1},
    "SoftTripleLoss": {"centers_per_class": 2},
    "SubCenterArcFaceLoss": {"sub_centers": 2},
    "MultipleLosses": {"losses": ["TripletMarginLoss", "IntraPairVarianceLoss"]},
    "CrossBatchMemory": {"loss": "ContrastiveLoss", "memory_size": 20},
}
PART_OPTIONS: dict[str, Any] = {
    "MultipleReducers": {"reducers": {"loss": {"name": "MeanReducer"}}},
    "ThresholdReducer": {"low": 0},
}
PICTURES, DIM, WORDS, LENGTH = 12, 16, 40, 6
CLASSES = torch.arange(PICTURES) // 4
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # in the library's HistogramLoss


def choices() -> Iterator[Any]:
    """Settings of a run, by the name of what is chosen; the last says whether the items have no captions."""
    for name in LOSSES:
        yield pytest.param({"loss": name, "loss_options": LOSS_OPTIONS.get(name, {})}, False, id=f"loss-{name}")
    for name in ALONE:
        yield pytest.param({"loss": name, "loss_options": LOSS_OPTIONS.get(name, {})}, True, id=f"loss-{name}-alone")
    for name in MINERS:
        for alone in (False, True):
            yield pytest.param({"loss": "ContrastiveLoss", "miner": name}, alone, id=f"miner-{name}{'-alone' * alone}")
    for option, (_, names) in PARTS.items():
        for name in names:
            made = {"name": name, **PART_OPTIONS.get(name, {})}
            loss = "ArcFaceLoss" if option == "weight_regularizer" else "MarginLoss" if "Div" in name else "ContrastiveLoss"
            if name == "PerAnchorReducer":
                made = {"name": name, "reducer": "MeanReducer"}
            yield pytest.param({"loss": loss, "loss_options": {option: made}}, False, id=f"{option}-{name}")
    for name in OPTIMIZERS:
        yield pytest.param({"optimizer": name}, False, id=f"optimizer-{name}")
        yield pytest.param({"loss": "ArcFaceLoss", "loss_optimizer": name}, False, id=f"loss_optimizer-{name}")
    for name in SCHEDULERS:
        yield pytest.param({"scheduler": name}, False, id=f"scheduler-{name}")


class Trial:
    """A CLIP of 35 000 weights, and what trains it."""

    def __init__(self, alone: bool, **changes: Any) -> None:
        self.alone = alone
        usual = {"model": "starter", "train_data": "data", "loss": "CLIPLoss", "epochs": 5, "learning_rate": 1e-3}
        settings = check_settings(usual | changes)
        torch.manual_seed(0)
        vision = {"image_size": 16, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1}
        text = {"context_length": LENGTH, "vocab_size": WORDS, "width": 32, "heads": 2, "layers": 1}
        self.model = open_clip.CLIP(DIM, vision, text, init_logit_bias=-5.0, output_dict=False)
        self.recipe = choose_recipe(settings, self.model, of_groups(PICTURES, PICTURES))
        self.kind = LOSSES[self.recipe.loss]
        scope = Scope(int(CLASSES.max()) + 1, DIM, alone)
        self.loss = make_loss(self.recipe.loss, self.recipe.loss_options, settings.miner, settings.miner_options, scope)
        self.optimizer = make_optimizer(self.model, self.recipe, settings.optimizer_options)
        self.loss_optimizer = make_loss_optimizer(self.loss, settings)

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        modules = {"model": self.model, "loss": self.loss} if isinstance(self.loss, nn.Module) else {"model": self.model}
        own = {} if self.loss_optimizer is None else {"loss_optimizer": self.loss_optimizer}
        return {**modules, "optimizer": self.optimizer, **own}

    def step(self, number: int) -> Tensor:
        """The loss of one step, from a number alone."""
        torch.manual_seed(number)
        pixels = torch.randn(PICTURES, 3, 16, 16)
        tokens = torch.randint(1, WORDS, (0 if self.alone else PICTURES + self.negatives, LENGTH))
        for optimizer in filter(None, (self.optimizer, self.loss_optimizer)):
            optimizer.zero_grad()
            set_learning_rate(optimizer, self.recipe.learning_rate_at(number))
        loss = backward(self._images, self._texts, pixels, tokens, lambda *both: self.loss(self._batch(*both, number)))
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)
        for optimizer in filter(None, (self.optimizer, self.loss_optimizer)):
            optimizer.step()
        remember(self.loss)
        assert loss.shape == ()
        assert loss.isfinite()
        return loss

    @property
    def negatives(self) -> int:
        return 4 if self.kind.data == "margin" else 0

    @property
    def weights(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *(self.loss.parameters() if isinstance(self.loss, nn.Module) else ())]

    def _images(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.model.encode_image(pixels), dim=-1)

    def _texts(self, tokens: Tensor) -> Tensor:
        if not len(tokens):
            return torch.zeros(0, DIM)
        return F.normalize(self.model.encode_text(tokens), dim=-1)

    def _batch(self, images: Tensor, texts: Tensor, number: int) -> EmbeddedBatch:
        assert images.shape == (PICTURES, DIM)
        assert texts.shape == (0 if self.alone else PICTURES + self.negatives, DIM)
        positives, scores = None, None
        if self.kind.data:
            positives = torch.eye(PICTURES, len(texts), dtype=torch.bool)
            scores = torch.full(positives.shape, math.nan)
            scores[positives] = torch.linspace(0, 1, PICTURES) if self.kind.data == "score" else 0.0
            scores[range(self.negatives), range(PICTURES, len(texts))] = -0.5
        return EmbeddedBatch(
            images,
            texts,
            self.model.logit_scale.exp(),
            self.model.logit_bias,
            positives,
            classes=CLASSES,
            scores=scores,
            rows=torch.arange(PICTURES) + PICTURES * number,
        )


@pytest.mark.parametrize(("settings", "alone"), list(choices()))
def test_every_choice_trains_and_goes_on_from_what_was_saved(settings: dict[str, Any], alone: bool, tmp_path: Path) -> None:
    trial = Trial(alone, **settings)
    before = {name: value.clone() for name, value in trial.model.state_dict().items()}
    for number in range(2):
        trial.step(number)
    torch.save({name: part.state_dict() for name, part in trial.parts.items()}, tmp_path / "last.pt")
    again = Trial(alone, **settings)
    for name, state in torch.load(tmp_path / "last.pt", weights_only=True).items():
        again.parts[name].load_state_dict(state)

    assert any(not torch.equal(value, before[name]) for name, value in trial.model.state_dict().items())
    assert torch.equal(trial.step(2), again.step(2))
    for one, other in zip(trial.weights, again.weights, strict=True):
        assert one.shape == other.shape
        assert one.isfinite().all()
        assert torch.equal(one, other)


@pytest.mark.parametrize("sampler", get_args(FinetuningSettings.model_fields["sampler"].annotation))
def test_every_sampler_trains_and_goes_on_from_what_was_saved(
    sampler: str, attune_home: Path, push: Callable[..., DatasetReport], tiny_vit: Path
) -> None:
    push("shapes", labelled_examples())
    settings = {"sampler": sampler, "loss": "ArcFaceLoss", "epochs": 1, "batch_size": 8, "check_pairs": False}
    ends = []
    for name, stops in (("unbroken", 99), ("broken", 2)):
        folder = start(name, tiny_vit, **settings)
        job = prepare(folder, check_settings(folder.load().settings), stop=lambda: job.position.step >= stops)  # noqa: B023
        assert all(len(rows) <= job.recipe.batch_size for rows in job.feed.plan(1))
        assert len(job.feed.plan(1)) == job.recipe.steps_per_epoch > 2
        if stops == 2:
            with pytest.raises(TrainingStopped):
                fit(job)
        run_stage("train", name)
        ends.append(torch.load(folder.checkpoints / "last.pt", weights_only=True)["model"])

    assert all(torch.equal(value, ends[1][name]) and value.isfinite().all() for name, value in ends[0].items())


@pytest.mark.parametrize("pooler", POOLERS)
def test_every_pooler_trains_and_is_there_in_what_was_saved(pooler: str, tmp_path: Path) -> None:
    texts = ["where is a cat", "a", "is a dog all", "where"]
    clip = load_clip(str(save_sentence(tmp_path / "encoder")), options=ModelOptions(pooler=pooler))
    loss, optimizer = make_loss("MultipleNegativesRankingLoss", {}), torch.optim.Adam(clip.model.parameters(), 1e-3)
    tokens, before = clip.tokenizer(texts), clip.encode_texts(texts)
    for _ in range(2):
        optimizer.zero_grad()
        found = encode_text(clip.model, tokens)
        assert found.shape == (4, clip.config["embed_dim"])
        loss(EmbeddedBatch(found, found.roll(1, 0), torch.tensor(1.0))).backward()
        gradients = [weight.grad for weight in clip.model.parameters() if weight.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        optimizer.step()
    clip.save_folder(tmp_path / "saved")
    again = load_folder(tmp_path / "saved")

    assert again.config["pooler"] == pooler
    assert (again.encode_texts(texts) == clip.encode_texts(texts)).all()
    assert abs(clip.encode_texts(texts) - before).max() > 1e-4
