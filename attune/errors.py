"""What can go wrong, and who is told.

AttuneError                     everything Attune raises on purpose
├── SettingsError               unknown, invalid or contradictory settings, all of them at once
├── DataError                   a dataset or a file of examples cannot be used
│   └── DatasetNotFound         no dataset of that name was pushed
├── ModelError                  a model name, checkpoint or folder cannot be loaded
├── RunError                    a run cannot do what was asked of it
│   ├── RunNotFound             no run of that name
│   ├── RunExists               the name is taken by another run
│   ├── RunFailed               a run that was waited for ended in FAILED
│   └── RunCancelled            a run that was waited for was cancelled
├── TrainingError               training stopped for a stated reason
│   └── TrainingStopped         it was asked to stop, and goes on from its checkpoint when it is started again
├── EvaluationError             figures cannot be computed, or must not be compared
├── ExportError                 the exported files do not give back the trained model
├── SearchError                 the index cannot answer
├── StorageFull                 the disk, or what may be used of it, does not hold it
├── LimitExceeded               a request is too large, or requests come too fast
├── AuthenticationError         no token, or one that the service does not know
├── AuthorizationError          the token may not do this
└── ServiceUnavailable          no Attune service answers at that address

A message says what happened, where, the value found and what to do. Errors cross the wire by class name and
message, so a client raises the class that the server raised.
"""


class AttuneError(Exception):
    """Everything Attune raises on purpose."""


class SettingsError(AttuneError):
    """Unknown, invalid or contradictory settings, all of them at once."""


class DataError(AttuneError):
    """A dataset or a file of examples cannot be used."""


class DatasetNotFound(DataError):
    """No dataset of that name was pushed."""


class ModelError(AttuneError):
    """A model name, checkpoint or folder cannot be loaded."""


class RunError(AttuneError):
    """A run cannot do what was asked of it."""


class RunNotFound(RunError):
    """No run of that name."""


class RunExists(RunError):
    """The name is taken by another run."""


class RunFailed(RunError):
    """A run that was waited for ended in FAILED."""


class RunCancelled(RunError):
    """A run that was waited for was cancelled."""


class TrainingError(AttuneError):
    """Training stopped for a stated reason."""


class TrainingStopped(TrainingError):
    """It was asked to stop, and goes on from its checkpoint when it is started again."""


class EvaluationError(AttuneError):
    """Figures cannot be computed, or must not be compared."""


class ExportError(AttuneError):
    """The exported files do not give back the trained model."""


class SearchError(AttuneError):
    """The index cannot answer."""


class StorageFull(AttuneError):
    """The disk, or what may be used of it, does not hold it."""


class LimitExceeded(AttuneError):
    """A request is too large, or requests come too fast.

    Attributes:
        seconds: wait so long and ask again; 0 if that would not help.
    """

    seconds: float = 0.0


class AuthenticationError(AttuneError):
    """No token, or one that the service does not know."""


class AuthorizationError(AttuneError):
    """The token may not do this."""


class ServiceUnavailable(AttuneError):
    """No Attune service answers at that address."""


def error_from_name(name: str, message: str) -> AttuneError:
    """The error that was raised on the other side of the wire.

    Args:
        name: class name, such as ``"RunExists"``. An unknown name gives a plain `AttuneError`.
        message: its message, kept word for word.
    """
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, AttuneError):
        return found(message)
    return AttuneError(f"{name}: {message}" if name else message)
