"""A model with another picture size, text length, pooling or width of embeddings than it comes with."""

from typing import Any

from attune.errors import SettingsError
from attune.models.libraries import functions_of
from attune.models.library import Library, library_of
from attune.settings import ModelOptions


def changed_config(config: dict[str, Any], options: ModelOptions) -> dict[str, Any]:
    """The configuration of the model that the options ask for; of none, an equal one.

    Args:
        config: of the model as it comes, see `attune.models.clip.config_of`.
        options: of the run.

    Raises:
        SettingsError: if it cannot pool like that.
    """
    return functions_of(config).changed_config(config, options)


def sized(options: ModelOptions, library: Library, dimension: int) -> ModelOptions:
    """The options, which for an `mlp` say how many numbers the embeddings have that it is to take.

    Args:
        options: of the run.
        library: of the model.
        dimension: of the data's embeddings; 0 of other data.
    """
    if library != "mlp" or not dimension or options.input_dim is not None:
        return options
    return options.model_copy(update={"input_dim": dimension})


def check_options(config: dict[str, Any], options: ModelOptions) -> None:
    """Passes if a model can have the options, as far as its configuration tells: nothing is loaded.

    Args:
        config: of the model as it comes.
        options: of the run.

    Raises:
        SettingsError: with what cannot be, the reason, and what to choose.
    """
    for name in ("input_dim", "hidden_sizes", "dropout"):
        if getattr(options, name) is not None and library_of(config) != "mlp":
            raise SettingsError(f"model_options.{name} = {getattr(options, name)!r} is of an `mlp` alone. Leave it out")
    functions_of(config).check_options(config, options)
    whole = changed_config(config, options)["embed_dim"]
    if too_long := [dim for dim in options.matryoshka_dims if dim >= whole]:
        raise SettingsError(
            f"model_options.matryoshka_dims: {', '.join(map(str, too_long))} is not below {whole}, the "
            "length of the model's embeddings, which is always trained. Name lengths below it"
        )
