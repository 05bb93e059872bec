"""What a figure depends on besides its split, as SHA-256: figures of unlike ones must not be compared.

The split's own is `attune.evaluation.measure.split_fingerprint`; `attune.evaluation.comparison.refuse_unlike` compares them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def preprocessing_fingerprint(preprocess: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of a preprocessing configuration, in whatever order its entries are.

    Args:
        preprocess: open_clip's `preprocess_cfg`, such as `attune.models.clip.Clip.preprocess`.
    """
    return hashlib.sha256(json.dumps(dict(preprocess), sort_keys=True).encode()).hexdigest()


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, of a model's tensors: names, types, shapes and every byte, in whatever order they are.

    Equal numbers of another precision are other weights. One tensor at a time is read, without a copy if it is in main
    memory in one piece.

    Args:
        weights: a model's `state_dict`, on any device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        # Says how many bytes follow, so that no two models can run together into the same ones.
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
