"""A small network on top of given embeddings, as Jina Finetuner's `mlp`: it begins as what it is given.

    x = v / |v| * sqrt(input_dim)                            of an embedding v, so that its length does not matter
    y = proj(x) + head(gelu(layers(x)))                      without hidden layers, proj(x) alone

`proj` begins as the identity and `head` as zero, so a new one finds what the given embeddings find, and a run's figures
before training are theirs. Of few pairs a network of random weights does not even learn as much. (A way through for what is
given: He et al. 2016, arXiv:1603.05027; a last layer of zeros: Goyal et al. 2017, arXiv:1706.02677.)
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attune.errors import SettingsError
from attune.models.image_encoder import START_SCALE
from attune.models.loaded import Loaded
from attune.models.mlp_folder import CONFIG, WEIGHTS, MlpFolder, read_mlp_folder
from attune.models.source import ModelSource
from attune.models.weights import load_weights, save_weights
from attune.settings import ModelOptions

HIDDEN_SIZES = (512,)
"""Where nothing is said. On a thousand pairs a linear map alone does as well; with more, there is room to learn more."""


class Mlp(nn.Module):
    """The network with what training asks of a CLIP: `encode_image`, `visual` and `logit_scale`.

    Args:
        config: see `config_of`, with the length of the embeddings it takes.
        scratch: whether all weights begin random.
    """

    def __init__(self, config: dict[str, Any], scratch: bool = False) -> None:
        super().__init__()
        self.visual = EmbeddingTower(config["input_dim"], config["hidden_sizes"], config["embed_dim"], config["dropout"])
        if not scratch:
            self.visual.begin_as_given()
        self.logit_scale = nn.Parameter(torch.tensor(START_SCALE).log())

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Embeddings (items, dim) of given ones (items, input_dim), float32."""
        found: Tensor = self.visual(images)
        return F.normalize(found, dim=-1) if normalize else found


class EmbeddingTower(nn.Module):
    """The layers, under the names that the artifact has them by.

    Args:
        input_dim: numbers in a given embedding.
        hidden_sizes: width of each hidden layer; none for a linear map alone.
        output_dim: numbers in the embeddings that it makes.
        dropout: chance (0-1) that a hidden unit is left out in training.
    """

    def __init__(self, input_dim: int, hidden_sizes: Sequence[int], output_dim: int, dropout: float) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.dropout = dropout
        sizes = [input_dim, *hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(size, wide) for size, wide in pairwise(sizes))
        self.head = nn.Linear(sizes[-1], output_dim) if hidden_sizes else None
        self.proj = nn.Linear(input_dim, output_dim, bias=False)

    def begin_as_given(self) -> None:
        """Lets it give the embeddings that it takes.

        Wider ones have the same similarities; of narrower ones it is a random projection. Draws from torch's random numbers.
        """
        if self.proj.in_features == self.proj.out_features:
            nn.init.eye_(self.proj.weight)
        else:
            nn.init.orthogonal_(self.proj.weight)
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, given: Tensor) -> Tensor:
        """Embeddings (items, output_dim) of given ones (items, input_dim)."""
        scaled = F.normalize(given.float(), dim=-1) * self.input_dim**0.5
        found: Tensor = self.proj(scaled)
        if self.head is not None:
            hidden = scaled
            for layer in self.layers:
                hidden = F.dropout(F.gelu(layer(hidden)), self.dropout, self.training)
            found = found + self.head(hidden)
        return found


def config_of(source: ModelSource) -> dict[str, Any]:
    """What builds the model, as it comes, again.

    Returns:
        `library`; `input_dim`, 0 for that of the data; `hidden_sizes`, a list; `embed_dim`, 0 for `input_dim`; `dropout`.

    Raises:
        ModelError: if a folder's configuration is not to be used.
    """
    config: dict[str, Any] = {
        "library": "mlp",
        "input_dim": 0,
        "hidden_sizes": [*HIDDEN_SIZES],
        "embed_dim": 0,
        "dropout": 0.0,
    }
    if source.folder is not None:
        said = read_mlp_folder(source.folder)
        config |= said.model_dump(include={"input_dim", "hidden_sizes", "dropout"}) | {"embed_dim": said.output_dim}
    return config


def changed_config(config: dict[str, Any], options: ModelOptions) -> dict[str, Any]:
    """The configuration of the model that the options ask for; of none, an equal one."""
    changed = dict(config)
    if options.hidden_sizes is not None:
        changed["hidden_sizes"] = [*options.hidden_sizes]
    if options.dropout is not None:
        changed["dropout"] = options.dropout
    changed["input_dim"] = options.input_dim or config["input_dim"]
    changed["embed_dim"] = options.output_dim or config["embed_dim"] or changed["input_dim"]
    return changed


def check_options(config: dict[str, Any], options: ModelOptions) -> None:
    """Passes if a model can have the options: nothing is loaded.

    Raises:
        SettingsError: with what cannot be, the reason, and what to choose.
    """
    for name in ("image_size", "context_length", "pooler", "gradient_checkpointing"):
        if value := getattr(options, name):
            raise SettingsError(
                f"model_options.{name} = {value!r} is of models of pictures or texts, no `mlp`. Leave it out"
            )
    changed = changed_config(config, options)
    if config["input_dim"]:
        others = [name for name in ("input_dim", "hidden_sizes", "embed_dim") if changed[name] != config[name]]
        for name in others:
            said = name.replace("embed_dim", "output_dim")
            raise SettingsError(
                f"model_options.{said} = {changed[name]!r}: the model was trained with {config[name]!r}, and is not built "
                "anew. Leave it out, or begin with `mlp`"
            )
    if options.dropout and not changed["hidden_sizes"]:
        raise SettingsError(
            f"model_options.dropout = {options.dropout}: it is for hidden units, and with hidden_sizes = [] there are none. "
            "Leave it out, or give hidden_sizes"
        )
    if not changed["input_dim"]:
        raise SettingsError(
            "The model `mlp` takes embeddings that were pushed, of as many numbers as they have, and there are none to tell "
            "how many. Name data with embeddings, or say model_options.input_dim"
        )


def load(source: ModelSource, options: ModelOptions) -> Loaded:
    """The model of a source with its weights; draws from torch's random numbers.

    Args:
        source: of the model.
        options: of the run, which `check_options` let pass.

    Raises:
        ModelError: if a folder's configuration is not to be used.
        RuntimeError, OSError: of torch and safetensors, where weights cannot be read or do not fit.
    """
    changed = changed_config(config_of(source), options)
    model = Mlp(changed, source.scratch)
    if source.folder is None or source.scratch:
        return Loaded(model, None, changed, {})
    said = read_mlp_folder(source.folder)
    model.visual.load_state_dict(load_weights(source.folder / WEIGHTS))
    nn.init.constant_(model.logit_scale, said.logit_scale)
    return Loaded(model, None, changed, {}, tuple(said.matryoshka_dims))


def save(folder: Path, loaded: Loaded, dtype: torch.dtype | None = None) -> None:
    """Writes weights and configuration.

    Args:
        folder: that exists.
        loaded: to save.
        dtype: of the weights, if not their own.
    """
    model: Mlp = loaded.model
    save_weights(folder / WEIGHTS, model.visual.state_dict(), dtype)
    said = MlpFolder(
        input_dim=loaded.config["input_dim"],
        hidden_sizes=loaded.config["hidden_sizes"],
        output_dim=loaded.config["embed_dim"],
        dropout=loaded.config["dropout"],
        logit_scale=model.logit_scale.item(),
        matryoshka_dims=sorted(loaded.matryoshka_dims),
    )
    (folder / CONFIG).write_text(said.model_dump_json(indent=2) + "\n")
