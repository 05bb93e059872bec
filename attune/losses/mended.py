"""Losses of the library, mended where they cannot train on such batches as there are here."""

from typing import Any

import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_pairs, convert_to_triplets
from torch import Tensor, nn


class DynamicSoftMarginLoss(losses.DynamicSoftMarginLoss):  # type: ignore[misc]  # the library has no types
    """Triplets weighed by how large their margin is among those of late (Zhang and Rusinkiewicz 2019, ICCV).

    In pytorch-metric-learning 2.9 the running histogram keeps the last step's graph, so that a second step fails, is in
    no state dict, has no bins for the largest margins, of pairs that are quite wrong, and none for what is no number.
    It also counts whatever the loss is asked of; here, what it is trained on alone, as with running statistics.

    Args:
        **options: the library's own.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        del self.hist_
        self.register_buffer("hist_", torch.zeros(self.num_bins + 2))

    def update_histogram(self, data: Tensor) -> None:
        """Counts margins (triplets,) in; the weights that follow from it are constants to a step."""
        if self.training and data.isfinite().all():
            super().update_histogram(data.detach())

    def weigh_loss(self, data: Tensor) -> Tensor:
        """Margins (triplets,) times their weights; those that are no numbers stay so, for whoever looks at the loss."""
        found: Tensor = super().weigh_loss(data) if data.isfinite().all() else data
        return found


class HistogramLoss(losses.HistogramLoss):  # type: ignore[misc]
    """The chance that a wrong pair is nearer than a right one, from histograms of both (Ustinova and Lempitsky 2016,
    arXiv:1611.00822).

    In pytorch-metric-learning 2.9 items that are the same fall beyond the last bin, and it fails.
    """

    def compute_density(self, distances: Tensor) -> Tensor:
        """The histogram of similarities (pairs,)."""
        found: Tensor = super().compute_density(distances.clamp(-1, 1 - 1e-6))
        return found


class ManifoldLoss(losses.ManifoldLoss):  # type: ignore[misc]
    """Items and what stands for their classes as a graph, on which a random walk from an item ends at its own class (Aziere
    and Todorovic 2019, CVPR).

    In pytorch-metric-learning 2.9 it takes no labels, and draws by chance to which proxy an item belongs. Here there is a
    proxy for each class.
    """

    def compute_loss(self, embeddings: Tensor, labels: Tensor, *_: Any) -> Any:
        """See the library's; `labels` int64 (items,), from 0."""
        return super().compute_loss(embeddings, None, labels, embeddings, None)


class SmoothAPLoss(losses.SmoothAPLoss):  # type: ignore[misc]
    """One minus the average precision of each query, with sigmoids in place of steps (Brown et al. 2020, arXiv:2007.12163).

    In pytorch-metric-learning 2.9 it takes nothing but as many classes as items of each, all in order, and no references.
    """

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, _: None, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, Any]:
        """See the library's; a query without right answers is not asked."""
        similar = self.distance(embeddings, ref_emb)
        candidates = torch.ones_like(similar, dtype=torch.bool)
        if ref_emb is embeddings:
            candidates.fill_diagonal_(False)  # a query is no answer to itself
        right = (labels[:, None] == ref_labels) & candidates
        queries, answers = right.nonzero(as_tuple=True)
        # How far each answer is above each right one, in the list of its query: (right pairs, answers).
        above = torch.sigmoid((similar[queries] - similar[queries, answers, None]) / self.temperature)
        above = above * candidates[queries].scatter(1, answers[:, None], False)
        precision = (1 + (above * right[queries]).sum(1)) / (1 + above.sum(1))
        count = right.sum(1)
        average = torch.zeros_like(similar[:, 0]).index_add(0, queries, precision) / count.clamp(min=1)
        asked = count.nonzero()[:, 0]
        return {"ap_loss": {"losses": 1 - average[asked], "indices": asked, "reduction_type": "element"}}


class ThresholdConsistentMarginLoss(losses.ThresholdConsistentMarginLoss):  # type: ignore[misc]
    """Right pairs below one similarity, and wrong ones above another, are brought to it (Zhang et al. 2024,
    arXiv:2307.04047).

    In pytorch-metric-learning 2.9 references are ignored, and where all is well there is nothing to go back through.
    """

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: Any, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, Any]:
        """See the library's."""
        anchors, right, others, wrong = convert_to_pairs(indices_tuple, labels, ref_labels)
        similar = self.distance(embeddings, ref_emb)
        lacking = (self.margin_plus - similar[anchors, right]).clamp(min=0)
        too_near = (similar[others, wrong] - self.margin_minus).clamp(min=0)
        loss = self.lambda_plus * _mean_of_positive(lacking) + self.lambda_minus * _mean_of_positive(too_near)
        return {"loss": {"losses": loss, "indices": None, "reduction_type": "already_reduced"}}


class TripletMarginLoss(losses.TripletMarginLoss):  # type: ignore[misc]
    """A right answer is nearer than a wrong one, by a margin; with `swap` the wrong one is kept from both query and right
    answer (Balntas et al. 2016, BMVC).

    In pytorch-metric-learning 2.9 `swap` takes the query at the right answer's place for that answer.
    """

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: Any, ref_emb: Tensor, ref_labels: Tensor
    ) -> dict[str, Any]:
        """See the library's."""
        picked = convert_to_triplets(indices_tuple, labels, ref_labels, t_per_anchor=self.triplets_per_anchor)
        items, places = embeddings, picked
        if self.swap and ref_emb is not embeddings:
            # As one set, in which a place is the same item's in rows and in columns.
            count = len(embeddings)
            items = ref_emb = torch.cat([embeddings, ref_emb])
            places = (picked[0], picked[1] + count, picked[2] + count)
        found: dict[str, Any] = super().compute_loss(items, labels, places, ref_emb, ref_labels)
        if len(picked[0]):
            found["loss"]["indices"] = picked
        return found


def _mean_of_positive(values: Tensor) -> Tensor:
    """The mean of those above 0; 0 if there are none."""
    return values.sum() / (values > 0).sum().clamp(min=1)


MENDED: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        DynamicSoftMarginLoss,
        HistogramLoss,
        ManifoldLoss,
        SmoothAPLoss,
        ThresholdConsistentMarginLoss,
        TripletMarginLoss,
    )
}
"""What is taken in place of the library's class of that name."""
