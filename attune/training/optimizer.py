"""The optimizer and its learning rate."""

import math

import torch
from torch import nn

from attune.config import FinetuningSettings


def make_optimizer(model: nn.Module, settings: FinetuningSettings) -> torch.optim.Optimizer:
    """AdamW with CLIP's betas and eps; no weight decay on norms, biases, logit_scale and other vectors.

    An eps of 1e-6 instead of 1e-8 keeps steps small where gradients are tiny (open_clip's default for ViT models).
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-6)


def learning_rate_at(step: int, total_steps: int, settings: FinetuningSettings) -> float:
    """Linear warm-up from 0, then half a cosine down to 0.

    Args:
        step: 0 for the first step.
        total_steps: of the whole run; warm-up takes `warmup_ratio` of them.
        settings: `learning_rate` is the peak.
    """
    warmup = round(total_steps * settings.warmup_ratio)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
