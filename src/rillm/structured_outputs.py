"""StructuredOutputsParams: what an output has to look like, checked as far as its shape goes.

Whether a schema, an expression or a grammar means anything is found by `rillm.constraints.checker`.
Names are those of vLLM's `StructuredOutputsParams`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rillm.errors import InvalidRequestError

MAX_CONSTRAINT_BYTES: Final = 2**19
"""Most bytes of UTF-8 in a constraint: the text, the schema as JSON, or all choices together."""
MAX_REGEX_BYTES: Final = 2**14
"""Most bytes of UTF-8 in a regular expression."""
MAX_NESTING: Final = 64
"""Deepest nesting of objects and arrays in a schema."""

_CONSTRAINTS: Final = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_SWITCHES: Final = ("json_object", "disable_any_whitespace", "disable_additional_properties")
_OF_JSON: Final = ("disable_any_whitespace", "disable_additional_properties", "whitespace_pattern")
"""Options that mean something only where the output is JSON."""
OWN_NAME: Final = "structured_outputs"


class StructuredOutputsParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Exactly one constraint on the output, and how JSON may be written.

    The output then fits the constraint from its first character to its last, unless it is cut off
    by `max_tokens` or a stop string.

    Raises:
        InvalidRequestError: no constraint or several, or one of the wrong type, too long or too
            deep; `param` names it.
    """

    json: str | dict[str, Any] | None = None
    """A JSON schema, or its text."""
    regex: str | None = None
    """A regular expression for the whole output: without look-around and back-references."""
    choice: list[str] | None = None
    """The output is one of these texts."""
    grammar: str | None = None
    """A context-free grammar: Lark as llguidance has it, or GBNF (rules written with `::=`)."""
    json_object: bool | None = None
    """True: the output is any JSON object."""
    structural_tag: str | None = None
    """Not supported: refused."""
    disable_any_whitespace: bool = False
    """JSON is written without spaces and line breaks between its parts."""
    disable_additional_properties: bool = False
    """Objects of a schema have the properties it lists and no others, unless it says otherwise."""
    whitespace_pattern: str | None = None
    """A regular expression for what may stand between the parts of JSON."""
    origin: str = OWN_NAME
    """The field of a request that this was made of, for errors to name."""

    def __post_init__(self) -> None:
        self.verify()

    def verify(self) -> None:
        """Check everything that can be seen without reading the constraint's language.

        Raises:
            InvalidRequestError: as the constructor.
        """
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool | None):
                raise self.error("must be true or false", name)
        given = [name for name in _CONSTRAINTS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            raise InvalidRequestError(
                f"{self.origin} has {' and '.join(given) or 'no constraint'}, must have "
                f"exactly one of {', '.join(_CONSTRAINTS[:-1])}",
                param=self.origin,
            )
        if self.structural_tag is not None:
            raise self.error("is not supported: use grammar or json")
        self._verify_constraint(given[0])
        self._verify_options()

    @property
    def constraint(self) -> str:
        """The name of the constraint that is set."""
        return next(name for name in _CONSTRAINTS if getattr(self, name) not in (None, False))

    def error(self, problem: str, name: str | None = None) -> InvalidRequestError:
        """The error for a field.

        Args:
            problem: what is wrong with it.
            name: the field's; None: the constraint's.
        """
        path = self.origin
        if path == OWN_NAME:
            path += f".{name or self.constraint}"
        return InvalidRequestError(f"{path} {problem}", param=path)

    def _verify_constraint(self, name: str) -> None:
        value = getattr(self, name)
        if name == "choice":
            self._check_choices(value)
        elif name == "json" and not isinstance(value, str):
            self._check_schema(value)
        elif name != "json_object":
            self._check_text(name, value)

    def _verify_options(self) -> None:
        is_json = self.json is not None or self.json_object
        for name in _OF_JSON:
            if getattr(self, name) and not is_json:
                raise self.error("is set, must be absent without json or json_object", name)
        if self.whitespace_pattern is not None:
            self._check_text("whitespace_pattern", self.whitespace_pattern)
            if self.disable_any_whitespace:
                raise self.error(
                    "is set, must be absent with disable_any_whitespace", "whitespace_pattern"
                )

    def _check_schema(self, value: object) -> None:
        if not isinstance(value, dict):
            raise self.error("must be a JSON schema: an object, or its text")
        if json_depth_exceeds(value, MAX_NESTING):
            raise self.error(f"is nested too deeply, must be at most {MAX_NESTING} levels deep")
        try:
            encoded = msgspec.json.encode(value)
        except (TypeError, ValueError) as error:
            raise self.error(f"cannot be written as JSON: {error}") from error
        self._check_size(len(encoded), MAX_CONSTRAINT_BYTES)

    def _check_text(self, name: str, value: object) -> None:
        if not isinstance(value, str):
            raise self.error("must be a string", name)
        if not value or (name != "regex" and not value.strip()):
            raise self.error("is blank", name)
        if "\0" in value:
            raise self.error("holds a NUL character", name)
        is_regex = name in ("regex", "whitespace_pattern")
        most = MAX_REGEX_BYTES if is_regex else MAX_CONSTRAINT_BYTES
        self._check_size(self._num_bytes(value, name), most, name)

    def _check_choices(self, choices: object) -> None:
        if not isinstance(choices, list) or not all(isinstance(each, str) for each in choices):
            raise self.error("must be a list of strings")
        if not choices:
            raise self.error("is empty, must hold at least one text")
        if not all(choices):
            raise self.error("holds an empty text")
        self._check_size(sum(map(self._num_bytes, choices)), MAX_CONSTRAINT_BYTES)

    def _num_bytes(self, text: str, name: str | None = None) -> int:
        try:
            return len(text.encode())
        except UnicodeEncodeError:
            raise self.error("is not valid Unicode", name) from None

    def _check_size(self, num_bytes: int, most: int, name: str | None = None) -> None:
        if num_bytes > most:
            raise self.error(f"has {num_bytes} bytes, must have at most {most}", name)


def json_depth_exceeds(value: object, limit: int) -> bool:
    """Whether objects and arrays are nested in each other more than `limit` times."""
    level: list[object] = [value]
    for _ in range(limit + 1):
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True
