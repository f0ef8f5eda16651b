"""Messages and tools to prompt text, by the model's own Jinja template.

Models come from anywhere, so a template is untrusted code: it sees plain data only, cannot change
it, and cannot loop or write without bound (`rillm.text.template_sandbox`).

Source: the environment that transformers documents for chat templates
(https://huggingface.co/docs/transformers/chat_templating): same names, filters and whitespace
rules, so that the text is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from rillm.errors import InvalidRequestError
from rillm.text.messages import Message, normalize_messages, to_plain
from rillm.text.template_sandbox import (
    MAX_PROMPT_CHARACTERS,
    Budget,
    Sandbox,
    sandbox_variables,
    writable,
)

_MAX_INDENT: Final = 64
_CONTINUE_MARK: Final = "\U000ff001"
_ARGUMENT_NAMES: Final = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "range"}
)

# What evaluating a template can raise besides Jinja's own errors: they are ordinary Python
# operations on the request's data.
_EVALUATION_ERRORS: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _RaisedByTemplateError(jinja2.TemplateError):
    """The template itself refused the conversation."""


class _GenerationBlock(Extension):
    """`{% generation %}`: marks what the model wrote, for training; here only a scope."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _raise_exception(message: object) -> NoReturn:
    raise _RaisedByTemplateError(str(message))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > _MAX_INDENT:
        raise OverflowError(f"it indents by more than {_MAX_INDENT}")
    # Jinja's own filter escapes HTML characters, which no model was trained on.
    return json.dumps(
        writable(value),
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(format_: str) -> str:
    return datetime.now().strftime(format_)


def _new_environment() -> Sandbox:
    environment = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class ChatTemplate:
    """One compiled template."""

    def __init__(self, source: str) -> None:
        """Compile a template.

        Args:
            source: Jinja source.

        Raises:
            ValueError: the source does not compile.
        """
        environment = _new_environment()
        try:
            tree = environment.parse(source)
            self._keeps_parts = _loops_over_content(tree)
            self._template = environment.from_string(environment.bounded(tree))
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"line {error.lineno}: {error.message}") from error
        except (SyntaxError, RecursionError) as error:
            # Jinja writes Python code; a `break` outside a loop is only found by Python.
            raise ValueError(str(error)) from error

    def render(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> str:
        """Render a conversation.

        Args:
            messages: the conversation, OpenAI style.
            tools: tool descriptions, OpenAI style.
            documents: documents for templates that quote them.
            add_generation_prompt: end with the header of an assistant message.
            continue_final_message: leave the final message open, for the model to go on with;
                excludes `add_generation_prompt`.
            variables: further names the template may read.
            transform: applied to all that the request brings before the template sees it.

        Returns:
            The prompt text, special tokens written out.

        Raises:
            InvalidRequestError: a message is malformed, the template refuses the conversation
                (with the template's own words), or it cannot render it.
        """
        if continue_final_message and add_generation_prompt:
            raise InvalidRequestError(
                "continue_final_message excludes add_generation_prompt: set one of them",
                param="continue_final_message",
            )
        chat = normalize_messages(messages, keep_parts=self._keeps_parts)
        arguments: dict[str, Any] = {
            "messages": chat,
            "tools": None if tools is None else to_plain(tools, "tools"),
            "documents": None if documents is None else to_plain(documents, "documents"),
        }
        if transform is not None:
            arguments = transform(arguments)
        final_text = ""
        if continue_final_message:
            final_text = _mark_end(arguments["messages"][-1])
        text = self._evaluate(
            {
                **_checked_variables(variables),
                **arguments,
                "add_generation_prompt": add_generation_prompt,
                **sandbox_variables(Budget()),
            }
        )
        return _cut_at_mark(text, final_text) if continue_final_message else text

    def _evaluate(self, arguments: dict[str, Any]) -> str:
        pieces: list[str] = []
        num_characters = 0
        try:
            for piece in self._template.generate(arguments):
                pieces.append(piece)
                num_characters += len(piece)
                if num_characters > MAX_PROMPT_CHARACTERS:
                    raise OverflowError(f"more than {MAX_PROMPT_CHARACTERS} characters")
        except _RaisedByTemplateError as error:
            raise InvalidRequestError(str(error), param="messages") from error
        except _EVALUATION_ERRORS as error:
            raise InvalidRequestError(
                f"the chat template cannot render these messages: {error}", param="messages"
            ) from error
        return "".join(pieces)


def _checked_variables(variables: Mapping[str, Any] | None) -> dict[str, Any]:
    plain = dict(to_plain(variables or {}, "chat_template_kwargs"))
    for name in plain:
        if name in _ARGUMENT_NAMES:
            raise InvalidRequestError(
                f"chat_template_kwargs holds {name!r}, which has a field of its own",
                param="chat_template_kwargs",
            )
    return plain


def _loops_over_content(tree: nodes.Template) -> bool:
    """Whether a loop runs over the parts of a message's content.

    Such a template takes content as a list; any other expects a string.
    """
    for loop in tree.find_all(nodes.For):
        iterable = loop.iter
        while isinstance(iterable, nodes.Filter) and iterable.node is not None:
            iterable = iterable.node
        match iterable:
            case nodes.Name(name="content") | nodes.Getattr(attr="content"):
                return True
            case nodes.Getitem(arg=nodes.Const(value="content")):
                return True
    return False


def _mark_end(message: Message) -> str:
    """Append a mark to the message's text; return the text."""
    content = message.get("content")
    holder, key = message, "content"
    if isinstance(content, list) and content:
        holder, key = content[-1], "text"
    text = holder.get(key)
    if not isinstance(text, str):
        raise InvalidRequestError(
            "continue_final_message is set, but the final message has no text to continue",
            param="continue_final_message",
        )
    # The space tells afterwards whether the template trims the text.
    holder[key] = f"{text}{_CONTINUE_MARK} "
    return text


def _cut_at_mark(rendered: str, final_text: str) -> str:
    text, mark, rest = rendered.rpartition(_CONTINUE_MARK)
    if not mark or final_text.strip() not in text:
        raise InvalidRequestError(
            "continue_final_message is set, but the chat template does not write out the final "
            "message as it is",
            param="continue_final_message",
        )
    return text if rest.startswith(" ") else text.rstrip()
