"""JsonFields: typed reading of one JSON object of a checkpoint, with errors that name the key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from rillm.errors import ConfigError


class JsonFields:
    """The keys of one JSON object.

    A key that is absent or null takes the default; without one it is an error.
    """

    def __init__(self, values: dict[str, object], source: str) -> None:
        """Wrap `values`; `source` is how errors call the object."""
        self._values = values
        self._source = source

    @classmethod
    def from_file(cls, path: Path) -> JsonFields:
        """Read a file that holds one JSON object.

        Raises:
            ConfigError: the file cannot be read, or holds something else.
        """
        try:
            values = json.loads(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} must hold a JSON object, not {type(values).__name__}")
        return cls(values, str(path))

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def error(self, key: str, problem: str) -> ConfigError:
        """A ConfigError that names the source, the key and its value."""
        return ConfigError(f"{self._source}: {key} is {self._values.get(key)!r}, {problem}")

    def integer(self, key: str, default: int | None = None, *, minimum: int = 1) -> int:
        """An integer of at least `minimum`."""
        value = self._value(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self.error(key, f"must be an integer of at least {minimum}")
        return value

    def number(self, key: str, default: float | None = None, *, above: float = -math.inf) -> float:
        """A finite integer or float greater than `above`."""
        value = self._value(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(key, "must be a number")
        if not above < value < math.inf:
            raise self.error(key, f"must be finite and above {above:g}")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """A number, or None if absent or null."""
        return self.number(key) if key in self else None

    def optional_integer(self, key: str, *, minimum: int = 0) -> int | None:
        """An integer of at least `minimum`, or None if absent or null."""
        return self.integer(key, minimum=minimum) if key in self else None

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.error(key, "must be a string")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self._value(key, None)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, "must be a list of strings")
        return value

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them; empty if absent or null."""
        value = self._values.get(key)
        items = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in items):
            raise self.error(key, "must be a token id or a list of token ids")
        return tuple(items)

    def nested(self, key: str) -> JsonFields:
        """The object under a key; an empty one if absent or null."""
        value = self._values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.error(key, "must be an object")
        return JsonFields(cast(dict[str, object], value), f"{self._source}: {key}")

    def is_null(self, key: str) -> bool:
        """Whether the key is present with the value null."""
        return key in self._values and self._values[key] is None

    def _value(self, key: str, default: object) -> object:
        value = self._values.get(key)
        if value is not None:
            return value
        if default is None:
            raise ConfigError(f"{self._source}: {key} is missing")
        return default
