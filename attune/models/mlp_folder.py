"""A folder with an `mlp`: plain enough to be opened with torch and safetensors alone.

mlp_config.json     input_dim, hidden_sizes, output_dim, dropout, logit_scale, matryoshka_dims
model.safetensors   proj.weight; layers.0.weight, layers.0.bias and so on; head.weight, head.bias

Its configuration is read as data that anyone may have written.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from attune.models.untrusted import read_as_data, read_object, shorter_lengths

CONFIG = "mlp_config.json"
WEIGHTS = "model.safetensors"

MAX_WEIGHTS = 10**9
"""Far fewer than a tower may have: it stands on embeddings that are made already."""

Size = Annotated[int, Field(ge=1, le=65_536)]


class MlpFolder(BaseModel):
    """What is said of a model besides its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    input_dim: Size = Field(description="Numbers in an embedding that it takes.")
    hidden_sizes: Annotated[list[Size], Field(max_length=16)] = Field(description="Width of each hidden layer.")
    output_dim: Size = Field(description="Numbers in an embedding that it gives.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Chance that a hidden unit is left out in training.")
    logit_scale: float = Field(ge=-10, le=10, description="Logarithm of the temperature that training goes on with.")
    matryoshka_dims: list[Size] = Field(default=[], description="Lengths of shorter embeddings that it was trained for.")

    @property
    def weights(self) -> int:
        """How many there are, but for biases."""
        sizes = [self.input_dim, *self.hidden_sizes, self.output_dim]
        through = sum(wide * size for size, wide in pairwise(sizes)) if self.hidden_sizes else 0
        return through + self.input_dim * self.output_dim


def is_mlp_folder(folder: Path) -> bool:
    """Whether a folder is meant to be such a model."""
    return (folder / CONFIG).is_file()


def read_mlp_folder(folder: Path) -> MlpFolder:
    """What a folder says, checked.

    Raises:
        ModelError: if it is no such model, or too large to be meant.
    """
    with read_as_data(folder / CONFIG, "Attune"):
        found = _checked(read_object(folder / CONFIG))
        if not (folder / WEIGHTS).is_file():
            raise ValueError(f"there is no {WEIGHTS} beside it")
    return found


def _checked(config: dict[str, Any]) -> MlpFolder:
    try:
        found = MlpFolder.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}") from error
    if found.weights > MAX_WEIGHTS:
        raise ValueError(f"it describes {found.weights:.0e} weights; at most {MAX_WEIGHTS:.0e} are built")
    shorter_lengths(found.matryoshka_dims, found.output_dim)
    return found
