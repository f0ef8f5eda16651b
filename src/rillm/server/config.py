"""Settings of a running server. The string under a field is its help text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rillm.errors import ConfigError
from rillm.output_formats import ToolStrict
from rillm.server.options import HttpOptions


@dataclass(frozen=True, kw_only=True)
class ListenConfig(HttpOptions):
    """Where to listen, how to answer, and how to stop."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of them."""
    port: int = 8000
    """TCP port; 0 picks a free one."""
    shutdown_timeout: int = 10
    """Seconds that running requests get after SIGINT or SIGTERM before they end with an error; a
    second signal ends them at once."""
    write_timeout: float = 300.0
    """Seconds for which a client may take nothing of what there is to read, or not be there at all,
    before its connection is closed; 0: for ever. Needs Linux."""
    ssl_certfile: str | None = None
    """File with the certificate, and what it is signed with, to be served over TLS."""
    ssl_keyfile: str | None = None
    """File with the certificate's key, if it is not in the same file."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: one is out of its range.
        """
        super().__post_init__()
        # Written so that NaN fails, too.
        if not (self.write_timeout == 0 or 1 <= self.write_timeout <= 86400):
            raise ConfigError(
                f"write_timeout is {self.write_timeout}, must be 0, or from 1 to 86400"
            )


@dataclass(frozen=True, kw_only=True)
class FrontendConfig(ListenConfig):
    """And how to read what the model writes."""

    tool_call_parser: str = "auto"
    """Format of the model's tool calls, one that `rillm formats` lists; `auto` reads it off the
    model's files, `none` leaves calls in the text."""
    tool_parser_plugin: str | None = None
    """File of a tool parser written for vLLM; --tool-call-parser then says its name."""
    reasoning_parser: str = "auto"
    """Format of the model's reasoning; `auto` and `none` as above."""
    tool_strict: ToolStrict = "auto"
    """When calls are held to their functions' schemas: `auto` where a request asks for it
    (tool_choice `required` or a name, `strict` functions, parallel_tool_calls false), `always`
    for every request with tools, or `never`."""
    reasoning_field: Literal["reasoning_content", "reasoning", "both"] = "reasoning_content"
    """Name under which a chat message holds its reasoning."""
    enable_scale_out: bool = False
    """Accepted: the token endpoint is always there."""
    enable_prompt_tokens_details: bool = False
    """Let the token endpoint's usage say how many prompt tokens came from the prefix cache."""


@dataclass(frozen=True, kw_only=True)
class ServerConfig(FrontendConfig):
    """And what to leave out."""

    tokens_only: bool = False
    """Run without a tokenizer: token ids in and out, no routes that speak text."""
