"""Loads a tool-parser plug-in written for vLLM, and makes its parsers, one for each choice."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rillm.errors import ConfigError, InvalidRequestError
from rillm.formats.machine import Machine, ToolChoice
from rillm.parsers import stand_in
from rillm.parsers.bridge import ParserBridge

_log = logging.getLogger(__name__)

_REQUEST_MODULES: Final = (
    "vllm.entrypoints.openai.chat_completion.protocol",
    "vllm.entrypoints.openai.protocol",
)
_MANAGER_MODULES: Final = ("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers")
REQUEST_FIELDS: Final = (
    *("messages", "model", "tools", "tool_choice", "parallel_tool_calls", "stream"),
    *("response_format", "chat_template_kwargs", "include_reasoning", "skip_special_tokens"),
)
"""Fields of a chat completion request that plug-ins are shown."""
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


class PluginTokenizer:
    """A tokenizer with the names by which plug-ins know its methods; other names are its own."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a tokenizer.

        Args:
            tokenizer: `rillm.text.tokenizer.Tokenizer`.
        """
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Tokens to their ids."""
        texts = map(self._tokenizer.token_text, range(self._tokenizer.vocab_size))
        return {text: token_id for token_id, text in enumerate(texts) if text}

    def get_vocab(self) -> dict[str, int]:
        """Tokens to their ids."""
        return self.vocab

    def decode(
        self, token_ids: int | Sequence[int], skip_special_tokens: bool = False, **_: Any
    ) -> str:
        """Turn token ids, or one, into text."""
        ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        text: str = self._tokenizer.decode(ids, skip_special_tokens)
        return text

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or those of several; None where there is none."""
        if isinstance(tokens, str):
            return self._tokenizer.token_id(tokens)
        return [self._tokenizer.token_id(token) for token in tokens]

    def convert_ids_to_tokens(self, token_ids: int | Sequence[int]) -> Any:
        """The token of an id, or those of several."""
        if isinstance(token_ids, int):
            return self._tokenizer.token_text(token_ids)
        return [self._tokenizer.token_text(token_id) for token_id in token_ids]


@dataclass(frozen=True, slots=True)
class ParserPlugin:
    """One parser class of a plug-in, with the tokenizer that its parsers are given."""

    name: str
    parser_class: type[Any]
    request_class: type[Any]
    tokenizer: Any

    def request(self, body: Mapping[str, Any]) -> Any:
        """A request as the plug-in's parsers read it, and changed as they ask for.

        Args:
            body: the fields of a chat completion request.

        Returns:
            The request; its `skip_special_tokens` says whether text leaves special tokens out.

        Raises:
            InvalidRequestError: vLLM is installed, and refuses the request.
        """
        fields = {name: body[name] for name in REQUEST_FIELDS if body.get(name) is not None}
        try:
            request = self.request_class(**fields)
        except Exception as error:
            raise InvalidRequestError(str(error)) from error
        try:
            return self.parser(request).adjust_request(request) or request
        except Exception:  # noqa: BLE001
            _log.exception("tool parser %s failed to adjust a request", self.name)
            return request

    def parser(self, request: Any) -> Any:
        """A new parser for one choice, or for one whole text."""
        parameters = inspect.signature(self.parser_class).parameters.values()
        num_positional = sum(each.kind in _POSITIONAL for each in parameters)
        if num_positional > 1 or any(each.kind is each.VAR_POSITIONAL for each in parameters):
            return self.parser_class(self.tokenizer, request.tools)
        return self.parser_class(self.tokenizer)

    def choice(
        self,
        request: Any,
        *,
        reasoning: Machine | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
    ) -> ParserBridge:
        """The parser of one choice.

        Args:
            request: made by `request`.
            reasoning: takes the reasoning off before the plug-in sees the text.
            tool_choice: `none` parses calls and drops them.
            parallel_tool_calls: whether there may be several calls; later ones are dropped if not.
        """
        return ParserBridge(
            lambda: self.parser(request),
            request,
            reasoning=reasoning,
            decode=self.tokenizer.decode,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
        )


def load_plugin(path: str, name: str, tokenizer: Any) -> ParserPlugin:
    """Load a plug-in as `--tool-parser-plugin` and `--tool-call-parser` name it.

    Where vLLM is not installed, a stand-in takes the place of its modules for good, and is taken
    out again if the plug-in cannot be loaded.

    Args:
        path: of the plug-in file, or the name of a module.
        name: under which the parser is registered.
        tokenizer: what parsers get: `PluginTokenizer`, or one of transformers.

    Raises:
        ConfigError: the plug-in cannot be loaded, has no such parser, or the parser refuses the
            tokenizer.
    """
    installed = stand_in.install() if stand_in.is_needed() else []
    try:
        module = _import_plugin(path)
        plugin = ParserPlugin(name, _find_class(module, path, name), _request_class(), tokenizer)
        _check(plugin)
    except ConfigError:
        stand_in.remove(installed)
        raise
    return plugin


def _import_plugin(path: str) -> ModuleType:
    file = Path(path).expanduser()
    name = f"rillm_plugin_{file.stem}" if file.is_file() else path
    is_new = name not in sys.modules
    try:
        if not file.is_file():
            return importlib.import_module(path)
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ConfigError(f"tool parser plug-in {path} is not a Python file")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ConfigError:
        raise
    except Exception as error:
        if is_new:
            sys.modules.pop(name, None)
        hint = ""
        if isinstance(error, ImportError) and stand_in.is_installed() and "vllm" in str(error):
            hint = "; rillm stands in for what most plug-ins import, this one needs vLLM itself"
        raise ConfigError(
            f"tool parser plug-in {path} cannot be loaded: {type(error).__name__}: {error}{hint}"
        ) from error
    return module


def _find_class(module: ModuleType, path: str, name: str) -> type[Any]:
    manager = _first(_MANAGER_MODULES, "ToolParserManager")
    _, class_name = getattr(manager, "lazy_parsers", {}).get(name, ("", ""))
    try:
        # A lazy registration may name a module that the plug-in is no part of here.
        found: type[Any] = getattr(module, class_name, None) or manager.get_tool_parser(name)
    except Exception as error:
        registered = sorted({*manager.tool_parsers, *getattr(manager, "lazy_parsers", {})})
        raise ConfigError(
            f"tool parser plug-in {path} registers no {name!r}, must be one of "
            + ", ".join(registered)
        ) from error
    return found


def _request_class() -> type[Any]:
    found: type[Any] = _first(_REQUEST_MODULES, "ChatCompletionRequest")
    return found


def _first(modules: Sequence[str], name: str) -> Any:
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise ConfigError(f"this version of vLLM has no {name} in " + " or ".join(modules))


def _check(plugin: ParserPlugin) -> None:
    try:
        plugin.parser(plugin.request_class(messages=[]))
    except Exception as error:
        raise ConfigError(
            f"tool parser {plugin.name} cannot be used with this model's tokenizer: {error}"
        ) from error
