"""Stands in for the modules of vLLM that a tool-parser plug-in imports, where vLLM is missing.

Only what plug-ins name is here: the records they read and return, the base class, and the
manager they register with. A plug-in that needs more needs vLLM itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar, Final


class Record:
    """A value made of keyword arguments, those that it does not know ignored.

    Mappings in the place of nested records become records.
    """

    fields: ClassVar[Mapping[str, Any]] = {}
    """Names to default values, or to functions that make them. A record class stands for None or
    such a record, a list of one for such records."""

    def __init__(self, **values: Any) -> None:
        for name, default in self.fields.items():
            is_many = isinstance(default, list)
            record = default[0] if is_many and default else default
            if not (isinstance(record, type) and issubclass(record, Record)):
                record = None
            if name in values:
                value = values[name] if record is None else _as_records(record, values[name])
            elif record is not None:
                value = [] if is_many else None
            else:
                value = default() if callable(default) else default
            setattr(self, name, value)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """The record as a dict, nested records too; without empty fields where options say so."""
        is_sparse = options.get("exclude_none") or options.get("exclude_unset")
        values = {name: getattr(self, name) for name in self.fields}
        return {
            name: _dump(value, options)
            for name, value in values.items()
            if not (is_sparse and value is None)
        }


def _as_records(record: type[Record], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_records(record, item) for item in value]
    return record(**value) if isinstance(value, dict) else value


def _dump(value: Any, options: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_dump(item, options) for item in value]
    return value.model_dump(**options) if isinstance(value, Record) else value


def _record(class_name: str, **fields: Any) -> type[Record]:
    return type(class_name, (Record,), {"fields": fields})


def _tool_call_id(*_: Any, **__: Any) -> str:
    return f"chatcmpl-tool-{uuid.uuid4().hex}"


_Function = _record("FunctionDefinition", name="", description=None, parameters=None, strict=None)
_Tool = _record("ChatCompletionToolsParam", type="function", function=_Function)
_NamedTool = _record("ChatCompletionNamedToolChoiceParam", type="function", function=_Function)
_Request = _record(
    "ChatCompletionRequest",
    messages=list,
    model=None,
    tools=_Tool,
    tool_choice=_NamedTool,
    parallel_tool_calls=True,
    stream=False,
    response_format=None,
    structured_outputs=None,
    chat_template_kwargs=None,
    include_reasoning=True,
    skip_special_tokens=True,
    spaces_between_special_tokens=True,
)
_FunctionCall = _record("FunctionCall", id=None, name="", arguments="{}")
_ToolCall = _record("ToolCall", id=_tool_call_id, type="function", function=_FunctionCall)
_Extracted = _record(
    "ExtractedToolCallInformation", tools_called=False, tool_calls=[_ToolCall], content=None
)
_DeltaFunction = _record("DeltaFunctionCall", name=None, arguments=None)
_DeltaCall = _record("DeltaToolCall", index=0, id=None, type=None, function=_DeltaFunction)
_DeltaMessage = _record(
    "DeltaMessage",
    role=None,
    content=None,
    reasoning=None,
    reasoning_content=None,
    tool_calls=[_DeltaCall],
)


class ToolParser:
    """Base of a plug-in's parser; one object for each choice."""

    supports_required_and_named = True
    structural_tag_model: str | None = None

    def __init__(self, tokenizer: Any, tools: list[Any] | None = None) -> None:
        self.prev_tool_call_arr: list[dict[str, Any]] = []
        self.current_tool_id = -1
        self.current_tool_name_sent = False
        self.streamed_args_for_tool: list[str] = []
        self.model_tokenizer = tokenizer
        self.tools = list(tools or ())

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Tokens to their ids."""
        vocab: dict[str, int] = self.model_tokenizer.get_vocab()
        return vocab

    def adjust_request(self, request: Any) -> Any:
        """Change what the parser needs otherwise in a request."""
        return request

    def extract_tool_calls(self, model_output: str, request: Any) -> Any:
        """Parse a whole output."""
        raise NotImplementedError


class ToolParserManager:
    """Parser classes by name."""

    tool_parsers: ClassVar[dict[str, type[Any]]] = {}
    lazy_parsers: ClassVar[dict[str, tuple[str, str]]] = {}

    @classmethod
    def register_module(
        cls,
        name: str | list[str] | None = None,
        force: bool = True,
        module: type[Any] | None = None,
    ) -> Any:
        """Register a class under one or several names; without `module`, a decorator."""

        def register(parser_class: type[Any]) -> type[Any]:
            names = [name] if isinstance(name, str) else name or [parser_class.__name__]
            for each in names:
                if not force and each in cls.tool_parsers:
                    raise KeyError(f"{each} is already registered")
                cls.tool_parsers[each] = parser_class
            return parser_class

        return register if module is None else register(module)

    @classmethod
    def register_lazy_module(cls, name: str, module_path: str, class_name: str) -> None:
        """Register a class by where it is to be found."""
        cls.lazy_parsers[name] = (module_path, class_name)

    @classmethod
    def get_tool_parser(cls, name: str) -> type[Any]:
        """The class of that name.

        Raises:
            KeyError: there is none.
        """
        if name not in cls.tool_parsers and name in cls.lazy_parsers:
            module_path, class_name = cls.lazy_parsers[name]
            cls.tool_parsers[name] = getattr(importlib.import_module(module_path), class_name)
        return cls.tool_parsers[name]

    @classmethod
    def list_registered(cls) -> list[str]:
        """All names."""
        return sorted({*cls.tool_parsers, *cls.lazy_parsers})


class MistralTokenizer:
    """For `isinstance` alone: rillm's tokenizer is none."""


def _is_list_of(value: object, kind: type[Any]) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _random_uuid() -> str:
    return uuid.uuid4().hex


_RECORDS: Final = {
    record.__name__: record
    for record in (
        *(_Function, _Tool, _NamedTool, _Request, _FunctionCall, _ToolCall, _Extracted),
        *(_DeltaFunction, _DeltaCall, _DeltaMessage),
    )
} | {"ResponsesRequest": _Request}
_PARSERS: Final[dict[str, Any]] = {
    "ToolParser": ToolParser,
    "ToolParserManager": ToolParserManager,
    "Tool": _Tool,
}
_IDS: Final[dict[str, Callable[..., str]]] = {
    "random_tool_call_id": _tool_call_id,
    "make_tool_call_id": _tool_call_id,
}
_TOKENIZERS: Final[dict[str, Any]] = {
    "AnyTokenizer": Any,
    "TokenizerLike": Any,
    "MistralTokenizer": MistralTokenizer,
}
_MODULES: Final[dict[str, Mapping[str, Any]]] = {
    "vllm": {"ToolParser": ToolParser},
    "vllm.logger": {"init_logger": logging.getLogger},
    "vllm.tool_parsers": _PARSERS,
    "vllm.tool_parsers.abstract_tool_parser": _PARSERS,
    "vllm.entrypoints.openai.tool_parsers": _PARSERS,
    "vllm.entrypoints.openai.tool_parsers.abstract_tool_parser": _PARSERS,
    "vllm.entrypoints.openai.protocol": _RECORDS,
    "vllm.entrypoints.openai.engine.protocol": _RECORDS,
    "vllm.entrypoints.openai.chat_completion.protocol": _RECORDS,
    "vllm.entrypoints.openai.responses.protocol": _RECORDS,
    "vllm.entrypoints.generate.base.protocol": _RECORDS,
    "vllm.entrypoints.chat_utils": _IDS,
    "vllm.renderers.chat_utils": _IDS,
    "vllm.tokenizers": _TOKENIZERS,
    "vllm.transformers_utils.tokenizer": _TOKENIZERS,
    "vllm.transformers_utils.tokenizers": _TOKENIZERS,
    "vllm.utils": {"random_uuid": _random_uuid, "is_list_of": _is_list_of},
    "vllm.utils.collection_utils": {"is_list_of": _is_list_of},
}


def is_needed() -> bool:
    """Whether vLLM is missing here, and its stand-in too."""
    return "vllm" not in sys.modules and importlib.util.find_spec("vllm") is None


def is_installed() -> bool:
    """Whether what plug-ins import is the stand-in."""
    return getattr(sys.modules.get("vllm"), "ToolParser", None) is ToolParser


def install() -> list[str]:
    """Put the stand-in into `sys.modules`.

    Returns:
        The names of its modules, for `remove`.
    """
    modules: dict[str, ModuleType] = {}
    for path, names in _MODULES.items():
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[:length])
            if name not in modules:
                modules[name] = module = ModuleType(name)
                module.__spec__ = ModuleSpec(name, None, is_package=True)
                module.__path__ = []
        vars(modules[path]).update(names)
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    sys.modules.update(modules)
    return list(modules)


def remove(names: list[str]) -> None:
    """Take the stand-in out of `sys.modules` again."""
    for name in names:
        sys.modules.pop(name, None)
