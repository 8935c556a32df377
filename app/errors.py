"""The exception tree. Each class is one problem type with one HTTP status, and one exit code of the commands.

BistilError
├── ConfigError 400
│   └── UnknownChoice
├── DataError 400
├── InvalidInput 422
├── TooManyInputs 422
├── InputTooLong 422
│   └── TooManyTokens
├── Unauthorized 401
├── Forbidden 403
├── NotServed 404
├── ClientGone 499
├── BundleError 500
├── EngineError 500
├── MissingExtra 500
├── Overloaded 503
├── NotReady 503
└── DeadlineExceeded 504
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar


class BistilError(Exception):
    """Root of everything this project raises on purpose; ``extensions`` are further members of the problem body.

    A message may name settings, files, limits and counts, never the text a user sent.
    """

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    """1 where the work failed, 2 where what was given or is installed has to change before it can be done."""
    type: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, message: str, **extensions: Any) -> None:
        super().__init__(message)
        self.extensions = extensions


class ConfigError(BistilError):
    """A configuration that cannot be used."""

    status = 400
    exit_code = 2
    type = "invalid-configuration"
    title = "Invalid configuration"


class UnknownChoice(ConfigError):
    """A name that is none of the choices, which are listed."""

    type = "unknown-choice"
    title = "Unknown choice"

    def __init__(self, what: str, value: object, choices: Iterable[str]) -> None:
        self.what, self.value, self.choices = what, value, tuple(choices)
        super().__init__(f"unknown {what} {value!r}; choose from: {', '.join(self.choices) or '(none)'}")

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process."""
        return type(self), (self.what, self.value, self.choices)


class DataError(BistilError):
    """A data file that is missing, empty, ill-formed or wrongly encoded."""

    status = 400
    exit_code = 2
    type = "invalid-data"
    title = "Invalid data"


class InvalidInput(BistilError):
    """A request whose values cannot be answered."""

    status = 422
    type = "invalid-input"
    title = "Invalid input"


class TooManyInputs(BistilError):
    """A request with more inputs than one may have."""

    status = 422
    type = "too-many-inputs"
    title = "Too many inputs"


class InputTooLong(BistilError):
    """A text with more characters than one may have."""

    status = 422
    type = "input-too-long"
    title = "Input too long"


class TooManyTokens(InputTooLong):
    """A text that cannot be read in windows, or a request as a whole, of more tokens than the model takes."""

    type = "too-many-tokens"
    title = "Too many tokens"


class Unauthorized(BistilError):
    """A request without a key where one is needed, or with one that is not known."""

    status = 401
    type = "unauthorized"
    title = "Unauthorized"


class Forbidden(BistilError):
    """A key that is not for this language."""

    status = 403
    type = "forbidden"
    title = "Forbidden"


class NotServed(BistilError):
    """A language or task this server has no bundle for."""

    status = 404
    type = "not-served"
    title = "Not served"


class ClientGone(BistilError):
    """Nobody waits for the answer any more; a status for logs and metrics."""

    status = 499
    type = "client-gone"
    title = "Client gone"


class BundleError(BistilError):
    """A bundle that is incomplete, altered or unreadable."""

    type = "invalid-bundle"
    title = "Invalid bundle"


class EngineError(BistilError):
    """The model could not be opened or run."""

    type = "engine-failure"
    title = "Engine failure"


class MissingExtra(BistilError):
    """An optional dependency that is not installed; the message holds the pip command that installs it."""

    exit_code = 2
    type = "missing-extra"
    title = "Missing optional dependency"

    @classmethod
    def of(cls, need: str, *, extra: str) -> "MissingExtra":
        """What needs which of this package's extras; it is installed from its source, being on no package index."""
        return cls(f"{need}: pip install '.[{extra}]' in the folder of bistil's source")


class Overloaded(BistilError):
    """The queue is full; try again after ``retry_after_s`` seconds."""

    status = 503
    type = "overloaded"
    title = "Overloaded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message, retry_after_seconds=retry_after_s)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process."""
        return type(self), (str(self), self.retry_after_s)


class NotReady(BistilError):
    """The server is still loading or is shutting down."""

    status = 503
    type = "not-ready"
    title = "Not ready"


class DeadlineExceeded(BistilError):
    """The request waited longer than its caller allowed."""

    status = 504
    type = "deadline-exceeded"
    title = "Deadline exceeded"

    @classmethod
    def after(cls, timeout_s: float) -> "DeadlineExceeded":
        """Of a request that had this long."""
        return cls(f"no answer within {timeout_s:g} s")


def error_types(root: type[BistilError] = BistilError) -> Iterator[type[BistilError]]:
    """Every class of the tree, its root included."""
    yield root
    for kind in root.__subclasses__():
        yield from error_types(kind)
