"""The documents on the wire, in the order they travel, and the table of endpoints that carry them.

Images travel as encoded bytes (JPEG, PNG, WebP), never as tensors: an order of magnitude less to send.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from docarray import BaseDoc, DocList
from pydantic import Field

from attune.figures import CHOSEN_BY
from attune.kinds import Kind, kind_of
from attune.names import DEFAULT_EXPERIMENT, reference_of

STATES = ("CREATED", "VALIDATING", "TRAINING", "EVALUATING", "EXPORTING", "FINISHED", "FAILED", "CANCELLED")
END_STATES = ("FINISHED", "FAILED", "CANCELLED")

MAX_IMAGE_BYTES = 64 * 2**20
"""Of one encoded picture; larger ones are refused."""


INT32 = range(-(2**31), 2**31)


class Document(BaseDoc):
    """What all documents share: docarray's integers have 32 bits on the wire, too few for the size of a large file."""

    def to_protobuf(self) -> Any:
        """As docarray writes it; larger integers as floats, exact to 2**53, which are integers again where they are read."""
        wide = {name: found for name, value in self if (found := _wide(value)) is not value}
        return BaseDoc.to_protobuf(self.model_copy(update=wide) if wide else self)


def _wide(value: Any) -> Any:
    if isinstance(value, dict) and any(_wide(inner) is not inner for inner in value.values()):
        return {name: _wide(inner) for name, inner in value.items()}
    return float(value) if type(value) is int and value not in INT32 else value


class TrainingExample(Document):
    """One picture, text or embedding, and what may be said of it, or others that belong to it; what users push."""

    image: bytes = Field(default=b"", description="The encoded picture: JPEG, PNG, WebP or GIF.")
    uri: str = Field(
        default="",
        description="Where the service reads the picture if `image` is empty: an absolute path on its machine, or an "
        "http(s) address. Off unless its operator allows the folder or the host.",
    )
    text: str = Field(
        default="", description="Instead of a picture: a query, say, whose documents or answers are the captions."
    )
    embedding: list[float] = Field(
        default_factory=list,
        description="Instead of a picture: what another model made of anything, for an `mlp` to be trained on.",
    )
    captions: list[str] = Field(
        default_factory=list,
        description="One or more texts that each describe the picture, or belong to the text. A single picture or "
        "embedding, which then has a label, or a single text has none.",
    )
    images: list[bytes] = Field(
        default_factory=list,
        description="Instead of captions: one or more encoded pictures that belong to the picture, such as the same thing "
        "in another place or style.",
    )
    embeddings: list[list[float]] = Field(
        default_factory=list, description="Instead of captions: one or more embeddings that belong to the embedding."
    )
    uris: list[str] = Field(
        default_factory=list, description="Where the service reads more of these, as `uri` says for the picture itself."
    )
    scores: list[float] = Field(
        default_factory=list,
        description="How near each caption is to the picture or the text, by any measure; all captions of a dataset have "
        "one, or none has. Without them every caption is a right answer.",
    )
    negatives: list[str] = Field(
        default_factory=list,
        description="Texts that look right for it and are not: wrong answers that a batch has besides those of others.",
    )
    margins: list[float] = Field(
        default_factory=list,
        description="Of each negative, how much lower than the captions a teacher scores it, for `MarginMSELoss`.",
    )
    group: str = Field(
        default="",
        description="Examples of one group never meet across a split, nor as negatives in a batch; single items go by "
        "labels there. Empty: the picture, or the text, is its own group.",
    )
    label: str = Field(
        default="",
        description="Class of it, to measure classification by, and to learn from with losses over classes; empty if it has "
        "none.",
    )
    tags: dict[str, str] = Field(
        default_factory=dict, description="Anything else that figures may be told apart by: `{'camera': 'X100'}`."
    )
    source: str = Field(default="", description="Where it came from, for messages: `captions.txt, line 12`.")


class Problem(Document):
    """One thing wrong with one example."""

    source: str = Field(default="", description="The example's own `source`, or its place in the request.")
    field: str = Field(default="", description="The example's field: `image`, `captions` ...")
    value: str = Field(default="", description="What was found there, shortened.")
    reason: str = Field(default="", description="A short code, counted in the metrics: `unreadable_image`.")
    advice: str = Field(default="", description="What is wrong and what to do, in a sentence.")


class OfItems:
    """What has counts of pictures and of texts in their place, and of captions and of pictures in theirs, one of each 0."""

    if TYPE_CHECKING:  # the fields are each document's own
        images: int
        texts: int
        captions: int
        matches: int
        dimension: int

    @property
    def kind(self) -> Kind:
        """Whether it is of pictures or of texts, with texts or pictures that belong to them, and what these are called."""
        return kind_of(self.images, self.texts, self.captions, self.matches, self.dimension)

    @property
    def items(self) -> int:
        """How many pictures or texts it is of."""
        return int(self.images + self.texts)

    @property
    def belonging(self) -> int:
        """How many captions, or matches, these have."""
        return int(self.captions + self.matches)

    @property
    def counted(self) -> str:
        """Both in words: `20 pictures with 100 captions`."""
        return self.kind.counted(self.items, self.belonging)


class DatasetReport(OfItems, Document):
    """What a dataset holds, and every problem found on the way in."""

    name: str = Field(default="", description="The name that `fit(train_data=...)` takes.")
    upload: str = Field(default="", description="Ties the batches of one push together.")
    fingerprint: str = Field(default="", description="SHA-256 of the content; equal data has equal fingerprints.")
    images: int = Field(default=0, description="Pictures accepted; equal pictures count once.")
    texts: int = Field(default=0, description="Texts accepted in place of pictures; a dataset holds the one or the other.")
    captions: int = Field(default=0, description="Captions accepted.")
    matches: int = Field(default=0, description="In pairs of pictures: those accepted in the place of captions.")
    dimension: int = Field(
        default=0,
        description="If embeddings stand in the place of pictures and are counted as such: numbers in each; else 0.",
    )
    groups: int = Field(default=0, description="Distinct groups.")
    rejected: int = Field(default=0, description="Examples set aside because of a problem.")
    merged: int = Field(
        default=0, description="Examples accepted whose picture or text another one had already: they became one."
    )
    batches: list[str] = Field(
        default_factory=list,
        description="Keys of an upload's batches: those that are there, or those that are to be the dataset.",
    )
    reasons: dict[str, int] = Field(default_factory=dict, description="How many problems there are of each reason.")
    after: int = Field(default=0, ge=0, description="For `/datasets/get`: problems already seen.")
    problems: DocList[Problem] = Field(
        default_factory=lambda: DocList[Problem](), description="The first 1000, or the next ones after `after`."
    )


class TrainingResult(Document):
    """What the Trainer did."""

    steps: int = Field(default=0, description="Optimizer steps taken.")
    epochs: int = Field(default=0, description="Epochs finished.")
    seconds: float = Field(default=0.0, description="Wall-clock seconds of training, validation included.")
    pairs_per_second: float = Field(default=0.0, description="Training pairs per second, validation excluded.")
    final_loss: float = Field(default=0.0, description="Mean loss of the last epoch.")
    best_epoch: int = Field(default=0, description="Epoch of the chosen checkpoint; 0 is the starting model.")
    start_recall: float = Field(
        default=0.0,
        description="Mean validation recall (both directions, @1/5/10) at the start; where captions have scores, "
        "Spearman's correlation of similarities with them; of single items MAP@R.",
    )
    best_recall: float = Field(default=0.0, description="The same of the chosen checkpoint.")
    device: str = Field(default="", description="Where it ran.")
    precision: str = Field(default="", description="Arithmetic of the forward pass: bf16 or fp32.")
    chosen: str = Field(default="", description="The weights chosen: `start`, `weights`, `average` or `interpolated`.")
    chosen_share: float = Field(
        default=1.0, description="Share of the trained weights in the chosen ones; the rest is the start."
    )
    recipe: dict[str, Any] = Field(
        default_factory=dict,
        description="Every setting with a value in place of `auto`, and what `micro_batch_size` came to, if not the batch.",
    )
    time_shares: dict[str, float] = Field(default_factory=dict, description="Share (0-1) of the time by kind of work.")


class EvaluationResult(OfItems, Document):
    """Before and after on one held-out split, same code, same preprocessing."""

    images: int = Field(default=0, description="Pictures in the held-out split.")
    texts: int = Field(default=0, description="Texts in their place, if the data is pairs of texts.")
    captions: int = Field(default=0, description="Captions in the held-out split.")
    matches: int = Field(default=0, description="Pictures in their place, if the data is pairs of pictures.")
    dimension: int = Field(default=0, description="Numbers of an embedding, if these stand in the pictures' place; else 0.")
    split_fingerprint: str = Field(default="", description="SHA-256 of the held-out pictures, or texts, and captions.")
    before: dict[str, float] = Field(default_factory=dict, description="Metric name to value, starting model.")
    after: dict[str, float] = Field(default_factory=dict, description="Metric name to value, chosen checkpoint.")
    difference_low: dict[str, float] = Field(default_factory=dict, description="2.5 % end of after minus before.")
    difference_high: dict[str, float] = Field(default_factory=dict, description="97.5 % end of after minus before.")
    p_values: dict[str, float] = Field(default_factory=dict, description="Two-sided p-value of no difference, by metric.")
    after_low: dict[str, float] = Field(
        default_factory=dict, description="2.5 % end of `after` itself, if there is no `before`."
    )
    after_high: dict[str, float] = Field(
        default_factory=dict, description="97.5 % end of `after` itself, if there is no `before`."
    )
    fingerprints: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of what the figures depend on besides the split: `preprocessing`, `before`, `after` (weights).",
    )
    warnings: list[str] = Field(default_factory=list, description="What a reader of the figures should know.")


class Artifact(Document):
    """The exported model, a folder that its library opens: open_clip, timm, sentence-transformers, or torch alone."""

    files: dict[str, int] = Field(default_factory=dict, description="File, by its path in the folder, to size in bytes.")
    checksums: dict[str, str] = Field(default_factory=dict, description="The same to SHA-256.")
    max_difference: float = Field(
        default=0.0, description="Largest absolute difference of an embedding, reloaded against trained."
    )


class FinetuningRun(Document):
    """A run: what was asked for, how far it is, what each stage found. Goes through `/finetune`, in and out."""

    name: str = Field(default="", description="Unique in its experiment; also the run folder's name.")
    experiment: str = Field(default=DEFAULT_EXPERIMENT, description="What the run belongs to; the folder above its own.")
    description: str = Field(default="", description="Free text.")
    settings: dict[str, Any] = Field(default_factory=dict, description="See `attune.settings.FinetuningSettings`.")
    request: str = Field(
        default="", description="Any text of the caller's own: submitted again with the same one, the run is not made twice."
    )
    state: str = Field(default="CREATED", description=f"One of {', '.join(STATES)}.")
    error: str = Field(default="", description="Why it FAILED.")
    position: int = Field(default=0, description="Place in the queue, from 1; 0 if it does not wait. Not kept, but told.")
    progress: dict[str, float] = Field(
        default_factory=dict,
        description="The newest numbers of the stage at work: step, steps, seconds_left, pairs_per_second, loss, "
        f"{', '.join(CHOSEN_BY)}. Not kept, but told.",
    )
    created_at: str = Field(default="", description="ISO 8601, UTC.")
    queued_at: str = Field(default="", description="ISO 8601, UTC: when it was submitted, resumed or tried again.")
    finished_at: str = Field(default="", description="ISO 8601, UTC; of the end it is at, if it is at one.")
    stage_started: dict[str, str] = Field(default_factory=dict, description="ISO 8601, UTC, by stage: its last start.")
    train_fingerprint: str = Field(default="", description="Content of `train_data` when the run was validated.")
    eval_fingerprint: str = Field(default="", description="Content of `eval_data`; empty if a split is held out.")
    val_fingerprint: str = Field(default="", description="Content of `val_data`; empty if a split is set aside.")
    retention_fingerprint: str = Field(default="", description="Content of `retention_data`; empty if there is none.")
    callback_fingerprints: dict[str, str] = Field(
        default_factory=dict, description="Content of each dataset that `callbacks` name."
    )
    stage_seconds: dict[str, float] = Field(default_factory=dict, description="Wall-clock seconds by stage.")
    training: TrainingResult = Field(default_factory=TrainingResult)
    evaluation: EvaluationResult = Field(default_factory=EvaluationResult)
    artifact: Artifact = Field(default_factory=Artifact)

    @property
    def data_fingerprints(self) -> set[str]:
        """Contents of all datasets that the run uses, as far as it was validated."""
        own = (self.train_fingerprint, self.eval_fingerprint, self.val_fingerprint, self.retention_fingerprint)
        return {*own, *self.callback_fingerprints.values()} - {""}

    @property
    def reference(self) -> str:
        """How the run is named everywhere: `experiment/name`, or `name` alone in the experiment `default`."""
        return reference_of(self.experiment, self.name)


class RunQuery(Document):
    """Which run, and from where in its stream of events; or which of all runs."""

    name: str = Field(
        default="", description="A run: `name`, or `experiment/name`. For `/runs/list`: only runs with this in their names."
    )
    experiment: str = Field(default="", description="For `/runs/list`: only this experiment's runs.")
    states: list[str] = Field(default_factory=list, description="For `/runs/list`: only runs in one of these states.")
    after: int = Field(default=0, ge=0, description="For `/runs/events`: events already seen.")
    after_run: str = Field(default="", description="For `/runs/list`: the last run of the page before, `experiment/name`.")
    limit: int = Field(default=1000, ge=1, le=10_000, description="The most events, or runs, to return.")


class Experiment(Document):
    """What runs belong to; it exists as long as it has any."""

    name: str = Field(default="")
    runs: int = Field(default=0, description="How many there are.")
    states: dict[str, int] = Field(default_factory=dict, description="How many of them are in which state.")
    created_at: str = Field(default="", description="ISO 8601, UTC, of its oldest run.")


class StorageReport(Document):
    """What the service keeps on disk, in bytes; a file with several names counts once."""

    runs: int = Field(default=0, description="Run folders: checkpoints, reports, artifacts.")
    datasets: int = Field(default=0, description="Datasets, with their caches of decoded pictures.")
    uploads: int = Field(default=0, description="Pushes that are under way, or were left.")
    indexes: int = Field(default=0, description="Search indexes.")
    quota: int = Field(default=0, description="The most that all of it may be; 0 if there is no such limit.")
    free: int = Field(default=0, description="Free on the disk it lies on.")


class RunEvent(Document):
    """One line of a run's history."""

    number: int = Field(default=0, description="Position in the stream, from 1.")
    time: str = Field(default="", description="ISO 8601, UTC.")
    kind: str = Field(default="log", description="`state`, `log`, `progress`, `validation`, `callback` ...")
    message: str = Field(default="", description="The line a person reads.")
    values: dict[str, float] = Field(default_factory=dict, description="Numbers by name: step, steps, loss ...")


class FileChunk(Document):
    """A piece of a run's file, on its way to the client."""

    run: str = Field(default="", description="A run: `name`, or `experiment/name`.")
    path: str = Field(default="", description="Relative to the run folder: `artifact/metrics.json`.")
    offset: int = Field(default=0, ge=0, description="Position of the first byte of `data`.")
    data: bytes = Field(default=b"", description="At most 4 MiB.")
    total: int = Field(default=0, description="Size of the whole file in bytes.")
    sha256: str = Field(default="", description="Checksum of the whole file as it is now.")


class SearchMatch(Document):
    """One hit."""

    key: str = Field(default="", description="The key the document was indexed under.")
    text: str = Field(default="", description="Its text.")
    score: float = Field(default=0.0, description="Cosine similarity to the query, -1 to 1.")


class SearchDocument(Document):
    """A document to index, or a query: a text, a picture or, for an `mlp`, an embedding."""

    key: str = Field(default="", description="Unique in the index: indexing it again replaces it.")
    text: str = Field(default="", description="Text to encode if there is no picture; kept and shown with a hit.")
    image: bytes = Field(default=b"", description="The encoded picture to encode; not kept.")
    embedding: list[float] = Field(
        default_factory=list, description="Unit length; set by the Encoder. For that of an `mlp`: what it is to embed."
    )
    model: str = Field(default="", description="SHA-256 of the model that made `embedding`; set by the Encoder.")
    matches: DocList[SearchMatch] = Field(default_factory=lambda: DocList[SearchMatch](), description="Best first.")


class Endpoint(NamedTuple):
    """Where an endpoint lives, what it carries, and whether it changes anything: a read-only token opens the others."""

    executor: str
    takes: type[Document]
    gives: type[Document]
    summary: str
    changes: bool = False


ENDPOINTS = {
    "/push": Endpoint("data_validator", TrainingExample, DatasetReport, "Check and store one batch of examples", True),
    "/datasets/commit": Endpoint("data_validator", DatasetReport, DatasetReport, "Close a push: name and report", True),
    "/datasets/uploaded": Endpoint(
        "data_validator", DatasetReport, DatasetReport, "Which batches need not be sent again", True
    ),
    "/datasets/get": Endpoint("data_validator", DatasetReport, DatasetReport, "What a dataset holds"),
    "/datasets/list": Endpoint("data_validator", DatasetReport, DatasetReport, "Datasets, by name"),
    "/datasets/delete": Endpoint("data_validator", DatasetReport, DatasetReport, "Forget a dataset's name", True),
    "/runs/submit": Endpoint("run_manager", FinetuningRun, FinetuningRun, "Persist a run and start it", True),
    "/runs/get": Endpoint("run_manager", RunQuery, FinetuningRun, "One run"),
    "/runs/list": Endpoint("run_manager", RunQuery, FinetuningRun, "Runs, newest first"),
    "/runs/events": Endpoint("run_manager", RunQuery, RunEvent, "A run's history, from any point"),
    "/runs/cancel": Endpoint("run_manager", RunQuery, FinetuningRun, "End a run; its checkpoints are kept", True),
    "/runs/resume": Endpoint("run_manager", RunQuery, FinetuningRun, "Go on with an ended run from its checkpoint", True),
    "/runs/retry": Endpoint("run_manager", RunQuery, FinetuningRun, "Start an ended run from the beginning", True),
    "/runs/delete": Endpoint("run_manager", RunQuery, FinetuningRun, "Remove a run and all its files", True),
    "/storage": Endpoint("run_manager", StorageReport, StorageReport, "What is kept on disk, and what is free"),
    "/experiments/list": Endpoint("run_manager", RunQuery, Experiment, "Experiments with their numbers of runs"),
    "/runs/file": Endpoint("run_manager", FileChunk, FileChunk, "A piece of a file of a run"),
    "/finetune": Endpoint("", FinetuningRun, FinetuningRun, "A run through all four stages", True),
    "/validate": Endpoint("data_validator", FinetuningRun, FinetuningRun, "Check settings, data and model of a run", True),
    "/train": Endpoint("trainer", FinetuningRun, FinetuningRun, "Train, in a child process", True),
    "/evaluate": Endpoint("evaluator", FinetuningRun, FinetuningRun, "Measure before and after, or a model as it is", True),
    "/export": Endpoint("exporter", FinetuningRun, FinetuningRun, "Write the artifact, reload it, compare", True),
    "/index": Endpoint("", SearchDocument, SearchDocument, "Encode and store documents", True),
    "/search": Endpoint("", SearchDocument, SearchDocument, "Encode queries and return the nearest documents"),
}
