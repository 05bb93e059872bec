"""What each step is given: pictures, captions, and which of them belong together."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attune.data.augment import DRAWS, augment, mirror
from attune.data.batches import epoch_batches, hard_batches
from attune.data.captions import Captions, Change
from attune.data.class_batches import class_batches
from attune.data.duplicates import Duplicates
from attune.data.pairs import Pairs
from attune.data.pixels import PixelCache
from attune.data.sides import can_be_mirrored
from attune.losses.table import LOSSES, needs_classes
from attune.models.clip import Clip
from attune.models.text import trim
from attune.models.tokens import Tokens
from attune.settings import FinetuningSettings
from attune.training.distributed import World, share
from attune.training.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """One step's pictures and captions: this process's share of them, and how all of them relate.

    Attributes:
        rows: training rows of all pictures, int64 (n,).
        images: of this process, uint8 (share of n, 3, height, width), or embeddings (share of n, dim); of pairs of texts
            the tokens of those in the pictures' place, int64 (share of n, length).
        texts: captions and negatives of this process's pictures, tokens int64 (share of m, length), or embeddings
            (share of m, dim); of pairs of pictures the matches, uint8 (share of m, 3, height, width); of single items none,
            float32 (0, dim), or the same once more for a loss that takes them twice.
        positives: bool (n, m), True where caption j is of picture i; None if both come one by one, and of single items.
        ignored: bool (n, m), True where a pair is no negative though it is not a positive; None if there are none.
        classes: number of each picture's class, int64 (n,); None if the loss has no use for them.
        scores: of each picture's own captions, float32 (n, m), NaN elsewhere; None if the data has none.
        image_counts: pictures of each process.
        text_counts: captions of each process.
    """

    rows: np.ndarray
    images: Tensor
    texts: Tensor
    positives: Tensor | None
    ignored: Tensor | None
    classes: Tensor | None
    scores: Tensor | None
    image_counts: list[int]
    text_counts: list[int]

    def __len__(self) -> int:
        return len(self.rows)


class Feed:
    """Batches of a run. Every batch follows from the seed, its epoch and its number alone.

    So a resumed run sees what an unbroken one would have, and all processes of a run draw the same batches, of which
    each loads its share.

    Attributes:
        image_table: embeddings (rows, dim) of all training pictures, if their tower is locked.
        text_table: embeddings (captions, dim) of all captions, and then all negatives, if the text tower is locked.
        alone: whether nothing belongs to the items but their classes.
        classes: number of each training picture's class, int64 (rows,), from 0, for losses over classes.
        look_alikes: the starting model's embeddings (rows, dim) of all training pictures, for hard negatives.
    """

    def __init__(
        self,
        pairs: Pairs,
        cache: PixelCache | None,
        captions: Captions,
        duplicates: Duplicates | None,
        change: Change | None,
        settings: FinetuningSettings,
        recipe: Recipe,
        world: World,
        clip: Clip,
    ) -> None:
        self.pairs = pairs
        self.cache = cache
        self.captions = captions
        self.duplicates = duplicates
        self.change = change
        self.settings = settings
        self.recipe = recipe
        self.world = world
        self.clip = clip
        self.image_table: Tensor | None = None
        self.text_table: Tensor | None = None
        self.look_alikes: np.ndarray | None = None
        self._twice = LOSSES[recipe.loss].twice
        self.alone = pairs.kind.is_single and not self._twice
        of_classes = self.alone or needs_classes(recipe.loss, recipe.loss_options)
        self.classes = _numbered(pairs.labels) if of_classes else None
        self._mirrors = can_be_mirrored(pairs) if recipe.horizontal_flip else None
        self._rows = cache.rows(pairs.images) if cache is not None else None
        self._match_rows = cache.rows(pairs.texts) if cache is not None and pairs.kind.has_matches else None
        self._queries = Tokens(clip.tokenizer, pairs.queries) if pairs.kind.of_texts else None

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The rows of each batch of an epoch, from 1."""
        rng = np.random.default_rng((self.settings.seed, epoch))
        if self.recipe.sampler == "class":
            return class_batches(self.pairs.labels, self.recipe.batch_size, self.settings.num_items_per_class, rng)
        if self.look_alikes is not None and self._is_hard(epoch):
            return hard_batches(
                self.look_alikes,
                self.pairs.groups,
                self.recipe.batch_size,
                rng,
                rows_per_epoch=self.settings.images_per_epoch,
            )
        return epoch_batches(self.pairs.groups, self.recipe.batch_size, rng, self.settings.images_per_epoch)

    def batches(self, epoch: int, plan: list[np.ndarray], start: int = 0) -> Iterator[Batch]:
        """The batches of a plan from number `start` on; the next one is made ready while one is worked on."""
        # With a team of its own beside that of the steps GNU's OpenMP would have more threads than cores: it then lets all
        # of them sleep between operations, which slows the steps far more than a team saves here.
        torch.get_num_threads()  # settles this thread's number: threads that have none yet take over the last that was set
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            ahead = [
                pool.submit(self.load, epoch, number, plan[number]) for number in range(start, min(start + 2, len(plan)))
            ]
            for number in range(start, len(plan)):
                batch = ahead.pop(0).result()
                if number + 2 < len(plan):
                    ahead.append(pool.submit(self.load, epoch, number + 2, plan[number + 2]))
                yield batch

    def _is_hard(self, epoch: int) -> bool:
        """Whether an epoch's batches are made of pictures that look alike; such epochs are spread evenly."""
        fraction = self.settings.hard_share
        return int(epoch * fraction) > int((epoch - 1) * fraction)

    def load(self, epoch: int, number: int, rows: np.ndarray) -> Batch:
        """The pictures of these rows with their captions, as batch `number` of an epoch."""
        rng = np.random.default_rng((self.settings.seed, epoch, number))
        sample = self.captions.sample(rows, "all" if self.settings.multi_positive else epoch, rng, self.change)
        slices = [share(len(rows), World(rank, self.world.size)) for rank in range(self.world.size)]
        # Captions are in the order of their pictures, so a process's captions are a stretch as well.
        bounds = [np.searchsorted(sample.owners, (part.start, part.stop)) for part in slices]
        mine, (first, last) = slices[self.world.rank], bounds[self.world.rank]
        one_each = len(sample.owners) in (len(rows), 0) and sample.wrong is None
        positives = None if one_each else sample.positives(len(rows))
        scores = sample.scored(len(rows))
        ignored = self.duplicates.ignored(rows, sample) if self.duplicates else None
        image_counts = [part.stop - part.start for part in slices]
        images = self._move(self._items(rows[mine]))
        if self._mirrors is not None:
            chosen = self._mirrors[rows] & (rng.random(len(rows)) < self.recipe.horizontal_flip)
            images = mirror(images, self._move(torch.from_numpy(chosen[mine])))
        # All processes draw for all of the batch: what becomes of a picture does not depend on which of them has it.
        images = self._changed(images, rng, len(rows), mine)
        texts = images if self._twice else self._move(self._texts(sample.tokens[first:last], sample.numbers[first:last]))
        texts = self._changed(texts, rng, len(sample.owners), slice(first, last))
        return Batch(
            rows=rows,
            images=images,
            texts=texts,
            positives=None if positives is None else self._move(positives),
            ignored=self._move(ignored) if ignored is not None and ignored.any() else None,
            classes=self._move(torch.from_numpy(self.classes[rows])) if self.classes is not None else None,
            scores=None if scores is None else self._move(scores),
            image_counts=image_counts,
            text_counts=image_counts if self._twice else [int(end - begin) for begin, end in bounds],
        )

    def _items(self, rows: np.ndarray) -> Tensor:
        """Pixels of pictures, tokens of texts in their place, or the embeddings of either."""
        if self.image_table is not None:
            return self.image_table[torch.from_numpy(rows)]
        if self._queries is not None:
            return trim(self._queries[rows], self.clip.model)
        assert self._rows is not None  # there are pictures
        return self._pixels(self._rows[rows])

    def _texts(self, tokens: Tensor, numbers: np.ndarray) -> Tensor:
        """Tokens of captions or their embeddings, or pixels of the matches in their place."""
        if self.pairs.kind.is_single:
            return torch.empty(0, self.clip.input_dim or self.clip.config["embed_dim"])  # an `mlp` embeds what there is
        if self._match_rows is not None:
            return self._pixels(self._match_rows[numbers])
        return trim(tokens, self.clip.model) if self.text_table is None else self.text_table[torch.from_numpy(numbers)]

    def _changed(self, items: Tensor, rng: np.random.Generator, count: int, mine: slice) -> Tensor:
        """Pictures as the recipe changes them, this process's among so many; whatever else there is, as it is."""
        if items.ndim != 4 or self.recipe.augmentation == "none":
            return items
        draws = rng.uniform(-1, 1, (count, DRAWS)).astype(np.float32)[mine]
        return augment(items, self.recipe.augmentation, self._move(torch.from_numpy(draws)))

    def _pixels(self, rows: np.ndarray) -> Tensor:
        assert self.cache is not None
        return torch.from_numpy(self.cache.pixels[rows])

    def _move(self, tensor: Tensor) -> Tensor:
        if self.clip.device.type != "cuda" or tensor.device == self.clip.device:
            return tensor
        return tensor.pin_memory().to(self.clip.device, non_blocking=True)


def _numbered(labels: list[str]) -> np.ndarray:
    """A number for each label, equal ones for equal labels, from 0: int64 (labels,)."""
    numbers: np.ndarray = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    return numbers
