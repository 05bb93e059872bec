import hashlib
import json

import pytest
import torch

from attune.evaluation.provenance import preprocessing_fingerprint, weights_fingerprint
from attune.models.clip import load_clip

WEIGHTS = {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor(0.5)}


def test_the_fingerprint_of_weights_is_that_of_what_is_documented() -> None:
    expected = hashlib.sha256(
        b'["a", "torch.float32", [2, 2]]'
        + WEIGHTS["a"].numpy().tobytes()
        + b'["b", "torch.float32", []]'
        + WEIGHTS["b"].numpy().tobytes()
    ).hexdigest()

    assert weights_fingerprint(WEIGHTS) == expected
    assert weights_fingerprint(dict(reversed(WEIGHTS.items()))) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"a": torch.tensor([[1.0, 2.0], [3.0, 4.0000005]])},
        {"a": torch.tensor([[1.0, 2.0], [3.0, -4.0]])},
        {"a": WEIGHTS["a"].half()},
        {"a": WEIGHTS["a"].bfloat16()},
        {"a": WEIGHTS["a"].view(torch.int32)},
        {"a": WEIGHTS["a"].reshape(4)},
        {"a": WEIGHTS["a"].T},
        {"a": WEIGHTS["b"], "b": WEIGHTS["a"]},
        {"c": WEIGHTS["a"][:0]},
    ],
    ids="value sign half bfloat16 bits shape order names more".split(),
)
def test_any_change_of_weights_changes_the_fingerprint(changed: dict[str, torch.Tensor]) -> None:
    assert weights_fingerprint({**WEIGHTS, **changed}) != weights_fingerprint(WEIGHTS)


def test_how_a_tensor_lies_in_memory_does_not_matter() -> None:
    turned = WEIGHTS["a"].T.contiguous().T
    assert not turned.is_contiguous()
    assert weights_fingerprint({**WEIGHTS, "a": turned}) == weights_fingerprint(WEIGHTS)


def test_a_model_that_is_loaded_again_has_the_same_fingerprint_until_a_weight_changes() -> None:
    clip = load_clip("starter", "cpu")
    before = weights_fingerprint(clip.model.state_dict())

    assert weights_fingerprint(load_clip("starter", "cpu").model.state_dict()) == before

    with torch.no_grad():
        clip.model.logit_scale += 1e-6
    assert weights_fingerprint(clip.model.state_dict()) != before


def test_preprocessing_is_the_same_in_any_order_and_through_json() -> None:
    one = {"size": (224, 224), "mean": [0.5, 0.5, 0.5], "interpolation": "bicubic"}
    other = json.loads(json.dumps(dict(reversed(one.items()))))

    assert preprocessing_fingerprint(one) == preprocessing_fingerprint(other)
    assert preprocessing_fingerprint({**one, "interpolation": "bilinear"}) != preprocessing_fingerprint(one)
    assert preprocessing_fingerprint({**one, "mean": [0.5, 0.5, 0.4999]}) != preprocessing_fingerprint(one)
