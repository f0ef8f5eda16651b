"""Every exception rillm raises on purpose.

RillmError
├── RequestError             the caller can fix it            HTTP 4xx
│   ├── InvalidRequestError      a field is wrong                 400
│   ├── ContextLengthError       prompt and output do not fit     400
│   ├── ModelNotFoundError       no such model                    404
│   └── ItemNotFoundError        no such response or item         404
├── CapacityError            try again later                  HTTP 503
│   ├── RateLimitError           the caller has its share         429
│   └── ShuttingDownError        elsewhere, or after a restart    503
├── DeadlineError            the caller's time is over        HTTP 504
├── EngineError              our fault                        HTTP 500
│   ├── EngineGenerateError      one request failed               500
│   │   └── PoisonedRequestError     it stops the engine              500
│   └── EngineDeadError          the engine core has stopped      500
└── ConfigError              the operator can fix it          exit code 2

The numbers are documentation: each face owns its mapping, in one table.
Nothing below the faces knows HTTP or gRPC.
"""

from __future__ import annotations


class RillmError(Exception):
    """Base of every exception raised on purpose."""


class RequestError(RillmError):
    """The request cannot be served as sent.

    Attributes:
        param: name or JSON path of the field at fault, such as `messages[2].content`, or None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequestError(RequestError, ValueError):
    """A field is wrong; also a ValueError, as a caller in Python expects of a bad argument."""


class ContextLengthError(InvalidRequestError):
    """Prompt and output do not fit the model's context."""


class ModelNotFoundError(RequestError):
    """The server does not serve a model of that name."""


class ItemNotFoundError(RequestError):
    """Nothing is kept under that id."""


class CapacityError(RillmError):
    """No room at present: the same request may succeed later.

    Attributes:
        retry_after_s: when, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitError(CapacityError):
    """A caller has reached the limit of its own."""


class ShuttingDownError(CapacityError):
    """The server is about to stop."""


class DeadlineError(RillmError):
    """The request was not done in the time that its caller had set."""


class EngineError(RillmError):
    """The engine failed; the request was not at fault."""


class EngineGenerateError(EngineError):
    """One request failed inside the engine; the others go on."""


class PoisonedRequestError(EngineGenerateError):
    """A request that has stopped the engine core twice; neither it nor an equal one is tried."""


class EngineDeadError(EngineError):
    """The engine core has stopped and serves nothing any more."""


class ConfigError(RillmError):
    """A model or a setting the operator has to change."""
