"""What LoadModel asks for: LocalAI's model options to settings of an engine and its formats.

Later sources win: the typed fields, then `--flag` options, then the JSON object of engine
arguments.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec

from rillm.engine_args import AsyncEngineArgs
from rillm.errors import ConfigError
from rillm.localai.backend_pb2 import ModelOptions
from rillm.output_formats import AUTO

logger = logging.getLogger(__name__)

MESSAGE_OPTION: Final = "localai_message"
CONTENT: Final = "content"
DELTAS_ONLY: Final = "deltas_only"

_OWN_OPTIONS: Final = ("tool_parser", "reasoning_parser", "tool_parser_plugin", MESSAGE_OPTION)
_NOT_FOR_LOCALAI: Final = {"model", "served_model_name", "skip_tokenizer_init"}
_HINTS: Final = {
    name: hint
    for name, hint in get_type_hints(AsyncEngineArgs).items()
    if name in {each.name for each in fields(AsyncEngineArgs)} - _NOT_FOR_LOCALAI
}
"""Engine arguments by name, with their types."""
_TYPED_FIELDS: Final = {
    "MaxModelLen": "max_model_len",
    "GPUMemoryUtilization": "gpu_memory_utilization",
    "EnforceEager": "enforce_eager",
    "TensorParallelSize": "tensor_parallel_size",
    "DType": "dtype",
    "Threads": "num_threads",
}
_UNSUPPORTED: Final = ("Quantization", "LoraAdapter", "LoraAdapters")
"""Fields that would change the answers."""
_LOAD_FORMATS: Final = ("", "auto", "safetensors", "hf")
_FLAG = re.compile(r"--(?P<name>[\w-]+)(?:[:=](?P<value>.*))?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A model to serve; equal settings are the same model."""

    identity: str
    """What LocalAI calls it, as requests repeat it in `ModelIdentity`."""
    engine_args: AsyncEngineArgs
    tool_parser: str = AUTO
    reasoning_parser: str = AUTO
    tool_parser_plugin: str | None = None
    deltas_only: bool = False
    """With tools, leave `message` empty: LocalAI then looks for no calls of its own in it."""


def read_model_options(options: ModelOptions) -> ModelSettings:
    """Read what LoadModel was sent.

    Raises:
        ConfigError: something is unknown, wrong or not supported; the message names it.
    """
    for name in _UNSUPPORTED:
        if value := getattr(options, name):
            raise ConfigError(f"{name} is {value!r}, must be absent: it is not supported")
    if options.LoadFormat not in _LOAD_FORMATS:
        raise ConfigError(
            f"LoadFormat is {options.LoadFormat!r}, must be absent or one of "
            + ", ".join(_LOAD_FORMATS[1:])
        )
    own, flags = _split(options.Options)
    given = {
        name: value for field, name in _TYPED_FIELDS.items() if (value := getattr(options, field))
    }
    arguments = {**given, **flags, **_engine_arguments(options.EngineArgs)}
    return ModelSettings(
        identity=options.Model,
        engine_args=AsyncEngineArgs(model=_model_path(options), **arguments),
        tool_parser=own.get("tool_parser", AUTO),
        reasoning_parser=own.get("reasoning_parser", AUTO),
        tool_parser_plugin=own.get("tool_parser_plugin"),
        deltas_only=_message_mode(own.get(MESSAGE_OPTION, CONTENT)) == DELTAS_ONLY,
    )


def _model_path(options: ModelOptions) -> str:
    """The file that LocalAI found, or else a path or an id of the hub."""
    if options.ModelFile and Path(options.ModelFile).exists():
        return options.ModelFile
    if not options.Model:
        raise ConfigError("Model is empty, must be a directory, the id of a model, or 'bundled'")
    return options.Model


def _message_mode(mode: str) -> str:
    if mode not in (CONTENT, DELTAS_ONLY):
        raise ConfigError(
            f"the option {MESSAGE_OPTION} is {mode!r}, must be {CONTENT} or {DELTAS_ONLY}"
        )
    return mode


def _split(options: Iterable[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Options of our own, and engine arguments among the flags; others are for other backends."""
    own: dict[str, str] = {}
    flags: dict[str, Any] = {}
    for option in options:
        key, has_value, value = option.partition(":")
        name = _normalized(key)
        if has_value and name in _OWN_OPTIONS:
            own[name] = value.strip()
        elif flag := _FLAG.fullmatch(option.strip()):
            flags |= _flag_argument(_normalized(flag["name"]), flag["value"])
    return own, flags


def _normalized(key: str) -> str:
    return key.strip().lstrip("-").replace("-", "_")


def _flag_argument(name: str, value: str | None) -> dict[str, Any]:
    """An engine argument as text; what is unknown or of the wrong type is passed over."""
    if name not in _HINTS:
        logger.warning("option --%s is unknown and has no effect", name)
        return {}
    try:
        text = "true" if value is None else value.strip()
        return {name: msgspec.convert(text, _HINTS[name], strict=False)}
    except msgspec.ValidationError as error:
        logger.warning("option --%s is %r and has no effect: %s", name, value, error)
        return {}


def _engine_arguments(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        arguments = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"EngineArgs must be a JSON object: {error}") from None
    return {name: _engine_argument(name, value) for name, value in arguments.items()}


def _engine_argument(name: str, value: object) -> object:
    if name not in _HINTS:
        near = difflib.get_close_matches(name, _HINTS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"EngineArgs holds {name!r}, which is unknown{hint}")
    try:
        return msgspec.convert(value, _HINTS[name])
    except msgspec.ValidationError as error:
        raise ConfigError(f"EngineArgs.{name} is {value!r}: {error}") from None
