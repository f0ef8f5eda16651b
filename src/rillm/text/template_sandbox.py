"""What chat templates run in: Jinja's sandbox, with an end to time and to size.

A template comes with a model, and models come from anywhere. Jinja's own sandbox keeps a template
from what it must not touch, but not from going on for ever. Here every loop, call and operator
that makes something larger counts against a budget of the rendering. What would be too large is
refused before it is made: one operation of Python cannot be interrupted.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_LOOP_ITEMS: Final = 1_000_000
"""Most numbers all `range` calls of one rendering may yield together."""
MAX_STEPS: Final = 10_000_000
"""Most items that all loops of one rendering go through, calls and operations among them."""
MAX_PROMPT_CHARACTERS: Final = 1 << 26
"""Most characters of a prompt, and of any text on the way to it."""
MAX_SECONDS: Final = 2.0
"""Most processor time of one rendering."""
_MAX_ITEMS: Final = 1_000_000
"""Most items of a list that is made, and most values in what is written out."""
_MAX_NUMBER: Final = 100_000
"""Largest number that says how large something is to be."""
_MAX_BITS: Final = 4096
_STEPS_BETWEEN_LOOKS: Final = 16
_BUDGET: Final = "@budget"
"""Name of the budget among a template's variables; no template can write it."""
_COUNTED: Final = "@counted"
_SPENT: Final = "@spent"
_JOINED: Final = "@joined"
_LONG_FIELD: Final = re.compile(r"[0-9]{5}|%[^a-zA-Z%]*\*|\{[^}]*\{")
"""Of texts with fields to fill in: a width of many digits, or one that comes from elsewhere."""


class Budget:
    """What is left of one rendering."""

    __slots__ = ("_deadline", "_num_looks", "_numbers_left", "_steps_left")

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MAX_SECONDS
        self._steps_left = MAX_STEPS
        self._numbers_left = MAX_LOOP_ITEMS
        self._num_looks = 0

    def spend(self, steps: int) -> None:
        """Count steps.

        Raises:
            OverflowError: they, or the time, are more than there were.
        """
        self._steps_left -= steps
        if self._steps_left < 0:
            raise OverflowError(f"it takes more than {MAX_STEPS} steps")
        self._num_looks += 1
        if self._num_looks % _STEPS_BETWEEN_LOOKS == 0 and time.thread_time() > self._deadline:
            raise OverflowError(f"it takes more than {MAX_SECONDS:.0f} seconds")

    def range(self, *arguments: int) -> range:
        """Python's, until there have been too many numbers."""
        numbers = range(*arguments)
        self._numbers_left -= len(numbers)
        if self._numbers_left < 0:
            raise OverflowError(f"its loops take more than {MAX_LOOP_ITEMS} steps")
        return numbers


def sandbox_variables(budget: Budget) -> dict[str, Any]:
    """What a rendering's variables hold for its sake."""
    return {_BUDGET: budget, "range": budget.range}


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that templates are compiled for."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, finalize=writable)
        del self.globals["lipsum"]
        for name, check in _CHECKS.items():
            self.filters[name] = _checked(self.filters[name], check)
        self.filters[_COUNTED] = _counted
        self.filters[_SPENT] = _spent
        self.filters[_JOINED] = _joined

    def bounded(self, tree: nodes.Template) -> nodes.Template:
        """Make the loops, filters and joints of a parsed template count."""
        for each in list(tree.find_all(nodes.Filter)):
            if each.node is not None:
                each.node = _filter(each.node, _SPENT, each.lineno)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filter(loop.iter, _COUNTED, loop.lineno)
        _replace_joints(tree)
        tree.set_environment(self)
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call something, within the budget; see Jinja."""
        __context.parent[_BUDGET].spend(1)
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes | int):
            _check_method(owner, __obj.__name__, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator, if what comes out is not too large; see Jinja."""
        context.parent[_BUDGET].spend(1)
        if operator == "+":
            if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
                _check_size(left, len(left) + len(right))
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**":
            is_large = isinstance(left, int) and isinstance(right, int)
            if is_large and left.bit_length() * abs(right) > _MAX_BITS:
                raise OverflowError("it makes too large a number")
        elif isinstance(left, str):
            _check_fields(left, right)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Guard `format` of a text; see Jinja."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> str:
            _check_fields(value.__self__, *args, *kwargs.values())
            return wrapped(*args, **kwargs)

        return checked


def _filter(node: nodes.Node, name: str, line: int) -> nodes.Expr:
    return nodes.Filter(node, name, [], [], None, None, lineno=line)


def _replace_joints(node: nodes.Node) -> None:
    """Put a filter over a list in the place of each `~`."""
    for name, value in node.iter_fields():
        items = value if isinstance(value, list) else [value]
        for at, item in enumerate(items):
            if not isinstance(item, nodes.Node):
                continue
            _replace_joints(item)
            if isinstance(item, nodes.Concat):
                joined = _filter(nodes.List(item.nodes, lineno=item.lineno), _JOINED, item.lineno)
                if isinstance(value, list):
                    value[at] = joined
                else:
                    setattr(node, name, joined)


@jinja2.pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    """What a loop goes through, counted as it goes."""
    budget: Budget = context.parent[_BUDGET]
    budget.spend(1)
    for item in items:
        budget.spend(1)
        yield item


@jinja2.pass_context
def _spent(context: Context, value: Any) -> Any:
    """The value, counted as one step."""
    context.parent[_BUDGET].spend(1)
    return value


def _joined(parts: list[Any]) -> str:
    texts = [str(writable(each)) for each in parts]
    _check_size("", sum(map(len, texts)))
    return "".join(texts)


def writable(value: Any) -> Any:
    """A value that is to be written out, unless that would take for ever."""
    if not isinstance(value, list | tuple | dict):
        return value
    pending = [value]
    num_values = num_characters = 0
    while pending:
        each = pending.pop()
        if isinstance(each, str):
            num_characters += len(each)
        elif isinstance(each, list | tuple | dict):
            num_values += len(each)
            if num_values > _MAX_ITEMS or num_characters > MAX_PROMPT_CHARACTERS:
                raise OverflowError("it writes out too large a value")
            pending += [*each, *each.values()] if isinstance(each, dict) else each
    _check_size("", num_characters)
    return value


def _check_size(kind: Any, length: int) -> None:
    """Refuse to make a text, or else a list, of a length."""
    most = MAX_PROMPT_CHARACTERS if isinstance(kind, str) else _MAX_ITEMS
    if length > most:
        what = "characters" if isinstance(kind, str) else "items"
        raise OverflowError(f"more than {most} {what}")


def _check_product(left: Any, right: Any) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str | list | tuple | bytes) and isinstance(other, int):
            _check_size(one, len(one) * other)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_bits(num_bits: int) -> None:
    if num_bits > _MAX_BITS:
        raise OverflowError("it makes too large a number")


def _check_fields(text: str, *values: Any) -> None:
    """Refuse a text with fields to fill in that could become longer than it looks."""
    if _LONG_FIELD.search(text):
        raise OverflowError("it fills in fields of great or unknown width")
    for value in values:
        writable(value)


def _check_numbers(arguments: Iterable[Any]) -> None:
    for each in arguments:
        if isinstance(each, int) and abs(each) > _MAX_NUMBER:
            raise OverflowError(f"it asks for a size above {_MAX_NUMBER}")


def _check_method(owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a method that would make too much of a text or a number."""
    _check_numbers((*args, *kwargs.values()))
    if not isinstance(owner, str):
        return
    if name == "translate":
        raise OverflowError("it translates characters")
    if name == "replace" and len(args) > 1:
        _check_replaced(owner, *args[:2])
    elif name == "join" and args and isinstance(args[0], list | tuple | dict):
        writable(args[0])
        _check_size("", len(owner) * len(args[0]))
    elif name == "expandtabs":
        width = args[0] if args else kwargs.get("tabsize", 8)
        _check_size("", owner.count("\t") * width)


def _check_replaced(text: Any, old: Any = "", new: Any = "", *_: Any) -> None:
    if all(isinstance(each, str) for each in (text, old, new)):
        _check_size("", len(text) + text.count(old) * len(new))


def _check_joined(items: Any, separator: Any = "", *_: Any) -> None:
    if isinstance(items, list | tuple | dict):
        writable(items)
        _check_size("", len(items) * len(str(separator)))


def _check_indented(text: Any, width: Any = 4, *_: Any) -> None:
    size = len(width) if isinstance(width, str) else width
    _check_size("", str(text).count("\n") * size)


def _check_wrapped(text: Any, *arguments: Any) -> None:
    longest = max((len(each) for each in arguments if isinstance(each, str)), default=0)
    _check_size("", len(str(text)) * longest)


def _check_nothing(*_: Any) -> None:
    """Numbers and the value itself are looked at in any case."""


_CHECKS: Final[dict[str, Callable[..., None]]] = {
    **dict.fromkeys(
        (
            *("string", "pprint", "escape", "e", "forceescape", "upper", "lower", "capitalize"),
            *("title", "trim", "striptags", "center", "truncate", "urlencode", "urlize"),
            *("wordcount", "xmlattr", "safe", "batch", "slice", "round", "filesizeformat"),
        ),
        _check_nothing,
    ),
    "replace": _check_replaced,
    "join": _check_joined,
    "indent": _check_indented,
    "wordwrap": _check_wrapped,
    "format": _check_fields,
}
"""Filters whose results can be larger than what they are given."""


def _checked(function: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """A filter, which refuses what would become too large."""
    num_before = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        value, *others = args[num_before:]
        others += kwargs.values()
        _check_numbers(others)
        if check is not _check_joined:
            writable(value)
        check(value, *others)
        return function(*args, **kwargs)

    return call
