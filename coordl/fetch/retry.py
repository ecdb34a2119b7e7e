"""Which errors of remote storage are temporary, and how long to wait before asking again.

Storage libraries are recognised by what their errors carry (HTTP status, errno, S3 code, the name
of the class), not by import: whichever of them is there works, and none has to be.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

# Request timeout, too early, too many requests, and the server's own troubles.
TEMPORARY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
# S3 and its kin say some of these with status 400.
_TEMPORARY_CODES = frozenset(
    {
        "BandwidthLimitExceeded", "InternalError", "OperationAborted", "RequestLimitExceeded",
        "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
        "TooManyRequestsException",
    }
)  # fmt: skip
_TEMPORARY_ERRNOS = frozenset(
    {
        errno.EAGAIN, errno.EBUSY, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET,
        errno.EHOSTUNREACH, errno.EINTR, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH,
        errno.EPIPE, errno.ETIMEDOUT,
    }
)  # fmt: skip
# Classes of aiohttp, botocore, requests, urllib3, http.client and azure-core, bases included.
_TEMPORARY_CLASSES = frozenset(
    {
        "ChunkedEncodingError", "ClientConnectionError", "ClientPayloadError",
        "ConnectTimeoutError", "ConnectionError", "HTTPClientError", "IncompleteRead",
        "IncompleteReadError", "ProtocolError", "ReadTimeoutError", "ServiceRequestError",
        "ServiceResponseError", "Timeout",
    }
)  # fmt: skip
_STATUS_NAMES = ("status", "status_code", "code")  # aiohttp, azure-core and requests, gcsfs
_jitter = random.Random()  # its own: the script's generators stay as they are


class InconsistentReadError(OSError):
    """What was read is not the object that was looked at: cut off, or changed meanwhile."""


class ChangedObjectError(OSError):
    """An object is another by now than the data set was made of; reading again does not help."""


@dataclass(frozen=True)
class Retry:
    """How often storage is asked, and the waits in between.

    The n-th wait is `first_s` doubled n times, at most `longest_s`, of which a random half is taken
    off, so that workers that were refused together do not come back together. What the answer's
    Retry-After says is waited for instead where it is longer, up to `longest_s`.

    Attributes:
        attempts: at most, the first one included.
        first_s, longest_s: seconds.
    """

    attempts: int = 6
    first_s: float = 0.25
    longest_s: float = 20.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_s < 0 or self.longest_s < self.first_s:
            raise ValueError(
                f"{self}: at least one attempt, and 0 <= first_s <= longest_s are needed"
            )

    def call(self, operation: Callable[[], T], retried: Callable[[float], None]) -> T:
        """Its result; a temporary error is tried again, `retried` told of the wait before.

        Raises: what the operation raised last, or what is not temporary at once.
        """
        for number in range(1, self.attempts + 1):
            try:
                return operation()
            except Exception as error:
                if number == self.attempts or not is_temporary(error):
                    raise
                wait_s = self._wait_s(number - 1, error)
            retried(wait_s)
            time.sleep(wait_s)
        raise AssertionError("unreachable")

    def _wait_s(self, number: int, error: Exception) -> float:
        wait_s = min(self.longest_s, self.first_s * 2.0**number) * _jitter.uniform(0.5, 1.0)
        return max(wait_s, min(self.longest_s, _retry_after_s(error)))


def is_temporary(error: BaseException) -> bool:
    """Whether asking again may help: the error says so, or one of those it came from.

    (fsspec's HTTP file system makes FileNotFoundErrors of any status, aiohttp gives a broken body
    a status 400 as its cause.)
    """
    return any(map(_says_temporary, causes_of(error)))


def status_of(error: BaseException) -> int | None:
    """The HTTP status the error carries, or what it came from."""
    return next((status for one in causes_of(error) if (status := _status(one))), None)


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, innermost last."""
    for _ in range(20):  # nobody forbids a circle
        if error is None:
            return
        yield error
        error = error.__cause__


def _says_temporary(error: BaseException) -> bool:
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    if code in _TEMPORARY_CODES:
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    if any("Certificate" in name or "SSL" in name for name in names):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, InconsistentReadError) or names & _TEMPORARY_CLASSES:
        return True
    if isinstance(error, OSError) and error.errno in _TEMPORARY_ERRNOS:
        return True
    return _status(error) in TEMPORARY_STATUSES


def _status(error: BaseException) -> int | None:
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        places = [(at, name) for at in (error, response) for name in _STATUS_NAMES]
        numbers = (_number(getattr(at, name, None)) for at, name in places)
        found = next((number for number in numbers if number), None)
    return found if isinstance(found, int) and 100 <= found < 600 else None


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int | str) and str(value).isdigit() else None


def _retry_after_s(error: BaseException) -> float:
    for one in causes_of(error):
        response = getattr(one, "response", None)
        headers: Any = getattr(one, "headers", None) or getattr(response, "headers", None)
        said = headers.get("Retry-After") if hasattr(headers, "get") else None
        if isinstance(said, str) and said.strip().isdigit():  # a date is not worth a clock's doubt
            return float(said)
    return 0.0
