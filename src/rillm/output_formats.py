"""The output formats of one model: chosen once, then set up for each request.

Joins formats to a tokenizer. Which of a format's markers are tokens of the vocabulary, and where
in the format a rendered prompt ends, is found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from rillm.choice_parser import ChoiceParser, OutputFormat
from rillm.errors import ConfigError
from rillm.format_grammars.frames import Start
from rillm.format_grammars.generator import content_grammar, tool_grammar, unsupported
from rillm.format_grammars.lark import GrammarError
from rillm.format_grammars.spelling import Spelling
from rillm.formats.description import Format
from rillm.formats.machine import Machine
from rillm.formats.registry import (
    UnknownFormatError,
    combine_formats,
    find_reasoning_format,
    find_tool_format,
    without_calls,
)
from rillm.formats.tokens import TokenMarkers, find_tokens
from rillm.model_formats.detect import Detected, Match, ModelTraits, architectures_of, detect
from rillm.model_formats.response_template import ResponseTemplateError, resolve_template
from rillm.model_formats.suffix import resolve
from rillm.models.config import read_generation_config
from rillm.parsers.plugin import ParserPlugin, PluginTokenizer, load_plugin
from rillm.text.tokenizer import Tokenizer

AUTO: Final = "auto"
NONE: Final = "none"

ToolStrict = Literal["auto", "always", "never"]
"""When calls are held to their functions' schemas: where a request asks for what only a grammar
ensures, for every request with tools, or not at all."""

_TAIL_TOKENS: Final = 256
"""Tokens at the end of a prompt among which the last turn begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOptions:
    """What a request says about tools."""

    tools: Sequence[Mapping[str, Any]] = ()
    """The functions offered, as the chat completions protocol has them."""
    choice: Literal["auto", "none", "required"] = "auto"
    function: str | None = None
    """The function that has to be called, if `choice` is `required`; None for any."""
    parallel: bool = True
    request: Mapping[str, Any] = field(default_factory=dict)
    """The whole request, which parsers from elsewhere may look at."""

    @property
    def callable(self) -> list[Mapping[str, Any]]:
        """The functions that may be called."""
        named = self.function
        return [each for each in self.tools if named in (None, each["function"]["name"])]

    @property
    def asks_for_grammar(self) -> bool:
        """Whether something was asked for that only a grammar ensures."""
        is_strict = any(each["function"].get("strict") for each in self.tools)
        return self.choice == "required" or is_strict

    @property
    def reading(self) -> Literal["auto", "none"]:
        """How the output is read: a forced call is written as a free one is."""
        return "none" if self.choice == "none" else "auto"


class _Vocabulary:
    """One format in terms of one vocabulary."""

    def __init__(self, format: Format, tokenizer: Tokenizer) -> None:
        self.format = format
        added = tokenizer.added_tokens
        special = tokenizer.special_token_ids
        self.tokens: TokenMarkers = find_tokens(
            format, {text: token_id in special for text, token_id in added.items()}
        )
        self.stand_ins = {added[text]: mark for text, mark in self.tokens.stand_ins.items()}
        turns = {added[text] for text in format.turn if text in added}
        self._turn_ids = (special - self.stand_ins.keys()) | turns
        self._tokenizer = tokenizer

    def tail(self, token_ids: Sequence[int]) -> str:
        """The text of a prompt's last turn, after the token or the text that begins it."""
        last = list(token_ids[-_TAIL_TOKENS:])
        start = len(last)
        while start and last[start - 1] not in self._turn_ids:
            start -= 1
        detokenizer = self._tokenizer.detokenizer(stand_ins=self.stand_ins)
        text = detokenizer.push(last[start:]) + detokenizer.finish()
        for turn in self.format.turn:
            text = text.rpartition(self.tokens.encode(turn))[2]
        return text

    def machine(self, tail: str, options: ToolOptions) -> Machine:
        """The parser of one choice, after a prompt with this `tail`."""
        machine = Machine(
            self.format,
            options.tools,
            tokens=self.tokens,
            start=None if self.format.header is not None else "content",
            tool_choice=options.reading,
            parallel_tool_calls=options.parallel,
        )
        machine.skip_prompt(tail)
        return machine

    def start(self, token_ids: Sequence[int]) -> Start:
        """Where in the format a prompt ends."""
        tail = self.tail(token_ids)
        reasoning = self.format.reasoning
        closes = () if reasoning is None else map(self.tokens.encode, reasoning.close)
        return Start(
            self.machine(tail, ToolOptions()).place,
            may_reason=not any(close in tail for close in closes),
        )

    def spelling(self, end_ids: Iterable[int]) -> Spelling:
        """How the format's markers are written."""
        added = self._tokenizer.added_tokens
        ids = {text: added[text] for text in self.tokens.stand_ins}
        return Spelling(self.tokens, ids, frozenset(end_ids))


class OutputFormats:
    """A model's formats, with tools and without."""

    def __init__(
        self,
        format: Format,
        tokenizer: Tokenizer,
        plugin: ParserPlugin | None = None,
        *,
        end_ids: Iterable[int] = (),
        tool_strict: ToolStrict = "auto",
    ) -> None:
        """Find the format's markers in a vocabulary.

        Args:
            format: what the model writes.
            tokenizer: the model's.
            plugin: a parser from elsewhere that reads the calls in place of the format.
            end_ids: tokens that end an output, besides the tokenizer's own.
            tool_strict: when calls are held to their functions' schemas.
        """
        self.format = format
        self._tokenizer = tokenizer
        self._plugin = plugin
        self._end_ids = set(end_ids)
        if tokenizer.eos_token_id is not None:
            self._end_ids.add(tokenizer.eos_token_id)
        self._tool_strict = tool_strict
        self._with_calls = _Vocabulary(format, tokenizer)
        self._without_calls = _Vocabulary(without_calls(format), tokenizer)

    @property
    def reads_calls(self) -> bool:
        """Whether the format of the model's tool calls is known."""
        return self.format.reads_calls or self._plugin is not None

    def for_prompt(
        self, prompt_token_ids: Sequence[int], options: ToolOptions | None
    ) -> OutputFormat | None:
        """The format of what follows a prompt; None where all of it is content.

        Args:
            prompt_token_ids: the rendered conversation; its end says whether reasoning is open.
            options: what was said about tools; None where none were offered: what looks like a
                call is text then.
        """
        if options is not None and self._plugin is not None:
            return self._with_plugin(self._plugin, prompt_token_ids, options)
        found = self._without_calls if options is None else self._with_calls
        if not found.format.has_markup:
            return None
        tail = found.tail(prompt_token_ids)
        return OutputFormat(
            new_parser=lambda: found.machine(tail, options or ToolOptions()),
            stand_ins=found.stand_ins,
            encode_stop=found.tokens.encode,
            name=found,
        )

    @property
    def no_tool_grammar(self) -> str:
        """Why calls cannot be constrained; empty if they can."""
        if self._plugin is not None:
            return "a plug-in reads the calls, and does not say how they are written"
        return unsupported(self.format)

    def constrains(self, options: ToolOptions | None) -> bool:
        """Whether the calls of a request are held to a grammar, if one can be made."""
        if options is None or not options.callable or options.choice == "none":
            return False
        match self._tool_strict:
            case "always":
                return True
            case "never":
                return False
        return options.asks_for_grammar or not options.parallel

    def tool_grammar(
        self, prompt_token_ids: Sequence[int], options: ToolOptions, rules: str = ""
    ) -> str:
        """The grammar of what may follow a prompt, calls that fit their schemas among it.

        Args:
            prompt_token_ids: as for `for_prompt`.
            options: what was said about tools.
            rules: as for `answer_grammar`, of an answer in place of calls; empty for any text.

        Raises:
            GrammarError: a name or a schema cannot be written in the model's format, or nothing
                can: see `no_tool_grammar`.
        """
        if self.no_tool_grammar:
            raise GrammarError(self.no_tool_grammar)
        found = self._with_calls
        return tool_grammar(
            found.format,
            options.callable,
            "required" if options.choice == "required" else "auto",
            rules=rules,
            is_parallel=options.parallel and options.function is None,
            start=found.start(prompt_token_ids),
            spelling=found.spelling(self._end_ids),
        )

    def answer_grammar(self, prompt_token_ids: Sequence[int], rules: str) -> str | None:
        """The grammar of an answer of a given form, after reasoning of any where there is some.

        Args:
            prompt_token_ids: as for `for_prompt`.
            rules: Lark, whose rule `content` is the answer.

        Returns:
            Lark; None where all of the output is the answer.
        """
        found = self._without_calls
        if not found.format.has_markup:
            return None
        return content_grammar(
            found.format,
            rules,
            start=found.start(prompt_token_ids),
            spelling=found.spelling(self._end_ids),
        )

    def _with_plugin(
        self, plugin: ParserPlugin, prompt_token_ids: Sequence[int], options: ToolOptions
    ) -> OutputFormat:
        found = self._without_calls
        tail = found.tail(prompt_token_ids)
        request = plugin.request(options.request)
        stand_ins = dict(found.stand_ins)
        if not request.skip_special_tokens:
            special = self._tokenizer.special_token_ids
            stand_ins = {token: self._tokenizer.token_text(token) for token in special} | stand_ins

        def new_parser() -> ChoiceParser:
            has_reasoning = found.format.has_markup
            return plugin.choice(
                request,
                reasoning=found.machine(tail, ToolOptions()) if has_reasoning else None,
                tool_choice=options.reading,
                parallel_tool_calls=options.parallel,
            )

        return OutputFormat(
            new_parser=new_parser, stand_ins=stand_ins, encode_stop=found.tokens.encode
        )


def choose_formats(
    directory: Path,
    tokenizer: Tokenizer,
    model_name: str,
    *,
    tool_name: str = AUTO,
    reasoning_name: str = AUTO,
    tool_plugin: str | None = None,
    tool_strict: ToolStrict = "auto",
) -> OutputFormats:
    """The formats of a model, chosen by name or by its own files.

    Args:
        directory: of the model.
        tokenizer: the model's.
        model_name: what the model is called.
        tool_name: of the tool half; `auto` for what the files say, `none` for no calls.
        reasoning_name: of the reasoning half, as above.
        tool_plugin: file of a parser written for vLLM, which registers `tool_name`.
        tool_strict: when calls are held to their functions' schemas.

    Raises:
        ConfigError: a name is unknown, the two halves cannot be mixed, or the plug-in or what the
            checkpoint declares cannot be used, or `tool_strict` asks for too much.
    """
    found = detect_formats(directory, tokenizer, model_name)
    plugin = None
    if tool_plugin is not None:
        plugin = load_plugin(tool_plugin, tool_name, PluginTokenizer(tokenizer))
        tool_name = NONE
    try:
        tool = _half(tool_name, found.tool, find_tool_format)
        reasoning = _half(reasoning_name, found.reasoning, find_reasoning_format)
        format = combine_formats(tool, reasoning)
        if format.from_checkpoint:
            format = resolve_template(tokenizer.response_template or {})
    except (UnknownFormatError, ResponseTemplateError) as error:
        raise ConfigError(str(error)) from error
    formats = OutputFormats(
        resolve(format, tokenizer.added_tokens),
        tokenizer,
        plugin,
        end_ids=read_generation_config(directory).eos_token_ids,
        tool_strict=tool_strict,
    )
    if tool_strict == "always" and formats.no_tool_grammar:
        raise ConfigError(
            f"tool_strict is 'always', which this model's calls cannot be held to: "
            f"{formats.no_tool_grammar}"
        )
    return formats


def detect_formats(directory: Path, tokenizer: Tokenizer, model_name: str) -> Detected:
    """What a model's own files say about its formats.

    Raises:
        ConfigError: config.json cannot be read.
    """
    path = directory / "config.json"
    try:
        config = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    traits = ModelTraits(
        template="\n".join(tokenizer.chat_templates.values()),
        tokens=frozenset(tokenizer.added_tokens),
        architectures=architectures_of(config),
        name=model_name,
        declares_format=tokenizer.response_template is not None,
    )
    return detect(traits)


def _half(name: str, detected: Match | None, find: Callable[[str], Format]) -> Format | None:
    if name == AUTO:
        return None if detected is None else detected.format
    return None if name == NONE else find(name)
