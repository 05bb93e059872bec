"""What every loss is given: the embeddings of a batch, and what belongs together in it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Taught(NamedTuple):
    """What a teacher finds in a batch, to be found as well.

    Attributes:
        logits: how near it finds each caption to each picture, float32 (pictures, captions): cosines times its own scale.
        share: of the target that this is, 0 to 1; the rest are the right answers.
    """

    logits: Tensor
    share: float


class EmbeddedBatch(NamedTuple):
    """A batch as its embeddings, over all processes; each loss takes of it what it needs.

    Attributes:
        images: of the pictures, or of the texts in their place, (pictures, dim), of unit length.
        texts: of the captions, or the pictures in their place, (captions, dim), of unit length; (0, dim) where there are
            none. Negatives that come with the data are captions of no picture.
        logit_scale: scalar, already exponentiated (1 to 100).
        logit_bias: scalar, about -10 where training starts; None of a model that was not made for a sigmoid loss.
        positives: bool (pictures, captions), True where the caption belongs to the picture; at least one in every row. A
            column without any is a text that looks for no picture. None: caption i belongs to picture i and to no other.
        ignored: bool (pictures, captions), True where the pair is neither positive nor a fair negative: it is no wrong
            answer. Where it says so of a positive, the positive stays. None: nothing is ignored.
        classes: int64 (pictures,), the number of each picture's class, from 0.
        scores: float (pictures, captions), NaN where none is given: how near they are to be; or a teacher's margins, 0 for a
            caption and minus its margin for a negative of the picture's own.
        rows: int64 (pictures,), numbers of the pictures that are theirs in every batch.
        taught: what a teacher finds; None if there is none.
    """

    images: Tensor
    texts: Tensor
    logit_scale: Tensor
    logit_bias: Tensor | None = None
    positives: Tensor | None = None
    ignored: Tensor | None = None
    classes: Tensor | None = None
    scores: Tensor | None = None
    rows: Tensor | None = None
    taught: Taught | None = None

    def targets(self) -> Tensor:
        """Which captions belong to which pictures: `positives`, bool (pictures, captions).

        Raises:
            ValueError: if there are none, and not as many captions as pictures.
        """
        if self.positives is not None:
            return self.positives
        pictures, captions = len(self.images), len(self.texts)
        if pictures != captions:
            raise ValueError(f"{pictures} pictures and {captions} captions: which belong together? Give positives")
        return torch.eye(pictures, dtype=torch.bool, device=self.images.device)

    def counted(self) -> Tensor:
        """Which pairs are right or wrong, and not ignored: bool (pictures, captions)."""
        targets = self.targets()
        return torch.ones_like(targets) if self.ignored is None else targets | ~self.ignored

    def owners(self) -> Tensor:
        """The picture of each caption by its place in the batch, int64 (captions,).

        A text that belongs to none has a number of its own, from the number of pictures on.
        """
        pictures, targets = len(self.images), self.targets()
        places = torch.arange(pictures, pictures + len(self.texts), device=self.images.device)
        return torch.where(targets.any(0), targets.int().argmax(0), places)

    def similarities(self, scale: Tensor | float | None = None) -> Tensor:
        """Cosines (pictures, captions), times `scale`, in float32: at 100, bf16 would round near captions together.

        Autocast is switched off for it, or the product of two float32 matrices would be computed in bf16 all the same.
        """
        images, texts = self.images.float(), self.texts.float()
        if scale is not None:
            images = (scale.float() if isinstance(scale, Tensor) else scale) * images
        with torch.autocast(images.device.type, enabled=False):
            return images @ texts.T

    def in_float32(self) -> "EmbeddedBatch":
        """The same with embeddings in float32."""
        return self._replace(images=self.images.float(), texts=self.texts.float())

    def shortened(self, dim: int) -> "EmbeddedBatch":
        """The same with the first `dim` numbers of embeddings, of unit length in float32; whole ones as they are."""
        if self.images.shape[1] == dim:
            return self
        images, texts = (F.normalize(each[:, :dim].float(), dim=-1) for each in (self.images, self.texts))
        return self._replace(images=images, texts=texts)


Loss = Callable[[EmbeddedBatch], Tensor]
"""The loss of one batch, a float32 scalar. Raises ValueError of a batch that it cannot use."""
