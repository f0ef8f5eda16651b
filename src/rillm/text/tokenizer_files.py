"""The tokenizer files of a checkpoint folder, read once.

Source: the layout transformers 5 writes and reads (tokenizer.json, tokenizer_config.json,
special_tokens_map.json, chat_template.jinja, additional_chat_templates).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import tokenizers
from tokenizers import AddedToken

from rillm.errors import ConfigError

_NAMED_TOKENS: Final = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """What the files say."""

    backend: tokenizers.Tokenizer
    """The tokenizer of tokenizer.json with the tokens the other files add; never truncates."""
    named_tokens: Mapping[str, str]
    """`bos_token`, `eos_token` and so on, those that are set, to their texts."""
    chat_templates: Mapping[str, str]
    """Template name to Jinja source; the usual one is `default`."""
    config: Mapping[str, Any]
    """All of tokenizer_config.json."""
    response_template: Mapping[str, Any] | None = None
    """How the checkpoint declares its own output format, if it does."""


def read_tokenizer_files(path: Path) -> TokenizerFiles:
    """Read a checkpoint's tokenizer.

    Args:
        path: the folder.

    Returns:
        What the files say.

    Raises:
        ConfigError: tokenizer.json is missing, or a file cannot be read; the message names it.
    """
    backend = _read_backend(path / "tokenizer.json")
    config = _read_object(path / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        config |= _read_object(path / "special_tokens_map.json")
    return TokenizerFiles(
        backend=_with_declared_tokens(backend, config, path),
        named_tokens={
            name: text for name in _NAMED_TOKENS if (text := _token_text(config.get(name)))
        },
        chat_templates=_read_chat_templates(path, config),
        config=config,
        response_template=_response_template(path, config),
    )


def markers_of(backend: tokenizers.Tokenizer) -> dict[int, str]:
    """Ids and texts of the tokens that stand for themselves and not for their text.

    These are all added tokens but ordinary runs of white space.
    """
    added = backend.get_added_tokens_decoder()
    return {
        i: token.content for i, token in added.items() if token.special or token.content.strip()
    }


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise ConfigError(f"{path} is missing: rillm needs the tokenizer in this format")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises nothing more specific.
        raise ConfigError(f"{path} is not a tokenizer: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _token_text(entry: object) -> str | None:
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _with_declared_tokens(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], path: Path
) -> tokenizers.Tokenizer:
    """Add the tokens that only tokenizer_config.json declares, as transformers does."""
    try:
        declared = [
            AddedToken(**{key: value for key, value in entry.items() if key != "__type"})
            for _, entry in sorted(
                config.get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])
            )
        ]
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"added_tokens_decoder of {path / 'tokenizer_config.json'} cannot be read: {error}"
        ) from error
    backend.add_tokens(declared)
    present = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    named, listed = _special_texts(config)
    special: list[str | AddedToken] = []
    for text in named:
        token = present.get(text, AddedToken(text, normalized=False))
        if not token.special:
            special.append(token)
    # A listed token that the files declare as ordinary stays so; a named one does not.
    special += [AddedToken(text, normalized=False) for text in listed if text not in present]
    backend.add_special_tokens(special)
    return backend


def _special_texts(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The special tokens a config gives a name, and those it only lists."""
    named: list[Any] = [config.get(name) for name in _NAMED_TOKENS]
    named += [config[key] for key in config if key.endswith("_token") and key not in _NAMED_TOKENS]
    listed: list[Any] = []
    for key in ("extra_special_tokens", "additional_special_tokens"):
        extra = config.get(key) or []
        if isinstance(extra, dict):
            named += extra.values()
        else:
            listed += extra
    return _texts(named), _texts(listed)


def _texts(entries: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(text for entry in entries if (text := _token_text(entry))))


def _read_chat_templates(path: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Template files win over tokenizer_config.json, that over the older chat_template.json."""
    templates = {
        file.stem: _read_text(file)
        for file in sorted((path / "additional_chat_templates").glob("*.jinja"))
    }
    main_file = path / "chat_template.jinja"
    if main_file.is_file():
        templates["default"] = _read_text(main_file)
    if templates:
        return templates
    entry = config.get("chat_template")
    if entry is None:
        entry = _read_object(path / "chat_template.json").get("chat_template")
    match entry:
        case None:
            return {}
        case str():
            return {"default": entry}
        case list() | dict():
            return _named_templates(entry, path)
    raise ConfigError(f"chat_template in {path} must be a string or a list of named templates")


def _named_templates(entry: list[Any] | dict[str, Any], path: Path) -> dict[str, str]:
    try:
        if isinstance(entry, list):
            entry = {item["name"]: item["template"] for item in entry}
        return msgspec.convert(entry, dict[str, str])
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"chat_template in {path / 'tokenizer_config.json'} must hold objects with name and "
            f"template: {error!r}"
        ) from error


def _response_template(path: Path, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    entry = config.get("response_template")
    if entry is not None and not isinstance(entry, dict):
        raise ConfigError(f"response_template in {path} must be an object")
    return entry


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
