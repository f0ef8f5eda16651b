"""What an operator can choose about the HTTP face, whatever it listens on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from starlette.types import Scope

from rillm.errors import ConfigError
from rillm.server.responses.options import ResponseOptions

OPTIONS: Final = "rillm.options"
"""Scope key of the application's options."""
MAX_BODY_BYTES: Final = 32 * 2**20
LIMITS_PER_KEY: Final = (
    "max_requests_per_key",
    "requests_per_minute_per_key",
    "tokens_per_minute_per_key",
)


@dataclass(frozen=True, kw_only=True)
class HttpOptions(ResponseOptions):
    """Settings of the application. The string under a field is its help text."""

    api_key: tuple[str, ...] = field(default=(), repr=False)
    """Key that callers have to show; may be given several times. Also taken from the environment
    variable RILLM_API_KEY. Probes, metrics, documentation and the playground's page
    stay open."""
    allowed_origins: tuple[str, ...] = ()
    """Origin whose pages may call this server from a browser; `*` for all, none by default."""
    allowed_methods: tuple[str, ...] = ("*",)
    """Method such a page may use."""
    allowed_headers: tuple[str, ...] = ("*",)
    """Header such a page may send."""
    allow_credentials: bool = False
    """Let such a page send cookies."""
    root_path: str = ""
    """Path under which a proxy shows this server, such as /llm; requests may come with or
    without it."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Largest request body."""
    heartbeat_seconds: float = 15.0
    """A stream that was silent for so long gets a comment line, so that nothing between server
    and client takes it for dead; 0 switches that off."""
    on_disconnect: Literal["abort", "continue"] = "abort"
    """What becomes of a stream when its reader goes away, unless its request says otherwise with
    X-On-Disconnect. One that continues can be resumed, and its events have ids."""
    resume_seconds: float = 60.0
    """How long such a stream is kept while nobody reads it; one that has not ended by then is
    aborted."""
    resume_bytes: int = 64 * 2**20
    """Most bytes of events to keep of such streams. Above it, those go that nobody reads, the
    longest unread first; then what all readers have taken."""
    enable_per_request_metrics: bool = False
    """Let every answer of chat and completions with one choice say its times: in the queue, to
    the first token, tokens per second. A request asks for its own with `return_metrics`."""
    enable_tokenizer_info_endpoint: bool = False
    """Answer GET /tokenizer_info with what the tokenizer's files say, chat template included."""
    max_requests_per_key: int = 0
    """Most requests of one API key that run or wait at a time, each prompt of a call counting as
    one; more get 429. 0: no limit. Without keys, all callers are one."""
    requests_per_minute_per_key: int = 0
    """Requests that a key may make in a minute; 0: no limit. What is not used is kept, up to one
    minute's worth."""
    tokens_per_minute_per_key: int = 0
    """Tokens of prompts and answers that a key may use in a minute, counted when a request has
    ended; as above."""
    metrics_aliases: bool = False
    """Show every metric under its `vllm:` name too, for dashboards and autoscalers that know
    only those."""
    strip_system_line: tuple[str, ...] = (
        r"x-anthropic-billing-header:.*",
        r"<total_tokens>.*</total_tokens>",
    )
    """Regular expression of a whole line that is taken out of system texts of /v1/messages; may be
    given several times, in place of the default. By default the two lines are that Claude Code
    writes anew for every request: no model needs them, and whatever follows such a line would
    never be found in the prefix cache."""
    request_log: Literal["text", "json", "off"] = "text"
    """Form of the line that is logged when a request has ended."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: one is out of its range.
        """
        super().__post_init__()
        if not all(self.api_key):
            raise ConfigError("api_key is empty, must hold at least one character")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ConfigError(
                f"root_path is {self.root_path!r}, must begin with a slash and not end with one"
            )
        if self.max_body_bytes < 1:
            raise ConfigError(f"max_body_bytes is {self.max_body_bytes}, must be at least 1")
        for name in LIMITS_PER_KEY:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, must be at least 0")
        for pattern in self.strip_system_line:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"strip_system_line is {pattern!r}, must be a regular expression: {error}"
                ) from None
        if self.on_disconnect not in ("abort", "continue"):
            raise ConfigError(
                f"on_disconnect is {self.on_disconnect!r}, must be 'abort' or 'continue'"
            )
        if self.resume_bytes < 1:
            raise ConfigError(f"resume_bytes is {self.resume_bytes}, must be at least 1")
        # Written so that NaN fails, too.
        if not 0 < self.resume_seconds <= 86400:
            raise ConfigError(
                f"resume_seconds is {self.resume_seconds}, must be above 0 and at most 86400"
            )
        if not 0 <= self.heartbeat_seconds <= 86400:
            raise ConfigError(
                f"heartbeat_seconds is {self.heartbeat_seconds}, must be from 0 to 86400"
            )


def options_of(scope: Scope) -> HttpOptions:
    """The options of the application that serves a request."""
    options: HttpOptions = scope[OPTIONS]
    return options
