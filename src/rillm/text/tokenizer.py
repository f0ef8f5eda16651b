"""A checkpoint's tokenizer: text to token ids, token ids to text, messages to a prompt.

Joins the parts of this package; owns no state of a request. Safe to use from several threads.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rillm.errors import ConfigError, InvalidRequestError
from rillm.text.chat_template import ChatTemplate
from rillm.text.detokenizer import (
    ByteDetokenizer,
    Detokenizer,
    StandInDetokenizer,
    WindowDetokenizer,
)
from rillm.text.messages import to_plain
from rillm.text.pieces import MAX_TOKEN_ID, PieceTable, find_byte_rule
from rillm.text.special_text import SpecialText
from rillm.text.tokenizer_files import TokenizerFiles, markers_of, read_tokenizer_files

_MAX_REQUEST_TEMPLATES: Final = 16


class Tokenizer:
    """Encodes and decodes as the checkpoint's files say.

    Attributes:
        vocab_size: tokens in the vocabulary, added ones included. A model may have more logits.
        bos_token, eos_token, pad_token: texts of these tokens, None where not set.
        bos_token_id, eos_token_id, pad_token_id: their ids.
        special_token_ids: ids left out of text when special tokens are skipped.
        markers: ids and texts of the tokens that a grammar may name.
        added_tokens: texts of the tokens that are matched before any others, to their ids.
        chat_templates: Jinja source by name; the usual one is `default`.
        config: all of tokenizer_config.json.
        response_template: how the checkpoint declares its own output format; None if it does not.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        """Build from what the files say.

        Args:
            files: read by `read_tokenizer_files`.

        Raises:
            ConfigError: a chat template does not compile.
        """
        self._backend = backend = files.backend
        self._named_tokens = dict(files.named_tokens)
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.bos_token, self.bos_token_id = self._named_token("bos_token")
        self.eos_token, self.eos_token_id = self._named_token("eos_token")
        self.pad_token, self.pad_token_id = self._named_token("pad_token")
        added_tokens = backend.get_added_tokens_decoder()
        self.added_tokens = {token.content: token_id for token_id, token in added_tokens.items()}
        special_tokens = {
            token_id: token.content for token_id, token in added_tokens.items() if token.special
        }
        self.special_token_ids = frozenset(special_tokens)
        self.markers = markers_of(backend)
        self._special_text = SpecialText(special_tokens)
        decoder = backend.decoder
        self._byte_rule = find_byte_rule(
            None if decoder is None else msgspec.json.decode(decoder.__getstate__())
        )
        self._pieces: dict[bool, PieceTable] = {}
        if self._byte_rule is not None:
            to_bytes = self._byte_rule.to_bytes
            self._pieces[True] = PieceTable(backend, to_bytes, self.special_token_ids)
            self._pieces[False] = PieceTable(backend, to_bytes, ())
        self.chat_templates = dict(files.chat_templates)
        self.config = files.config
        self.response_template = files.response_template
        self._chat_templates = {
            name: _compile_own(name, source) for name, source in files.chat_templates.items()
        }
        self._compile_request_template = functools.lru_cache(_MAX_REQUEST_TEMPLATES)(ChatTemplate)

    @classmethod
    def from_directory(cls, path: Path) -> Tokenizer:
        """Read a checkpoint folder.

        Args:
            path: a folder with tokenizer.json.

        Returns:
            The tokenizer.

        Raises:
            ConfigError: a file is missing or malformed; the message names it.
        """
        return cls(read_tokenizer_files(path))

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Turn text into token ids.

        Args:
            text: any text; special tokens written in it become special tokens.
            add_special_tokens: put the tokens around it that the tokenizer prescribes.

        Returns:
            Token ids.

        Raises:
            InvalidRequestError: the text is not valid Unicode (a lone surrogate).
        """
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        """Encode several texts on several cores; see `encode`."""
        try:
            encodings = self._backend.encode_batch_fast(
                list(texts), add_special_tokens=add_special_tokens
            )
        except TypeError as error:
            raise InvalidRequestError(
                "the prompt must be valid Unicode text, without lone surrogates", param="prompt"
            ) from error
        return [encoding.ids for encoding in encodings]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Turn token ids into text, exactly as a detokenizer does piece by piece.

        Args:
            token_ids: ids; those outside the vocabulary add nothing.
            skip_special_tokens: leave special tokens out.

        Returns:
            The text; malformed UTF-8 is U+FFFD.
        """
        detokenizer = self.detokenizer(skip_special_tokens=skip_special_tokens)
        return detokenizer.push(token_ids) + detokenizer.finish()

    def detokenizer(
        self,
        *,
        skip_special_tokens: bool = True,
        prompt_token_ids: Sequence[int] = (),
        stand_ins: Mapping[int, str] | None = None,
    ) -> Detokenizer:
        """Start the text of one choice.

        Args:
            skip_special_tokens: leave special tokens out.
            prompt_token_ids: what the choice continues; its end decides whether a first space
                is text, and completes a character that it cuts.
            stand_ins: text to put for these token ids, whether they are special or not.

        Returns:
            A new detokenizer.
        """
        detokenizer: Detokenizer
        if self._byte_rule is not None:
            detokenizer = ByteDetokenizer(
                self._pieces[skip_special_tokens],
                strips_first_space=self._byte_rule.strips_first_space,
                prompt_token_ids=prompt_token_ids,
            )
        else:
            detokenizer = WindowDetokenizer(
                functools.partial(self._backend.decode, skip_special_tokens=False),
                functools.partial(self._is_visible, skip_special_tokens),
                prompt_token_ids,
            )
        return StandInDetokenizer(detokenizer, stand_ins) if stand_ins else detokenizer

    def token_text(self, token_id: int) -> str:
        """The token's name in the vocabulary, empty if there is none."""
        if not 0 <= token_id <= MAX_TOKEN_ID:
            return ""
        return self._backend.id_to_token(token_id) or ""

    def token_id(self, token: str) -> int | None:
        """The id of a token by its name in the vocabulary."""
        return self._backend.token_to_id(token)

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text, special tokens included.

        Args:
            token_id: any id.

        Returns:
            UTF-8, possibly a part of a character; empty outside the vocabulary.
        """
        if self._byte_rule is not None:
            piece = self._pieces[False][token_id]
            return piece.encode() if isinstance(piece, str) else piece
        return self.decode([token_id], skip_special_tokens=False).encode()

    def apply_chat_template(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        **variables: Any,
    ) -> str:
        """Write a conversation as prompt text.

        Args:
            messages: the conversation, OpenAI style.
            tools: tool descriptions, OpenAI style.
            documents: documents for templates that quote them.
            add_generation_prompt: end with the header of an assistant message.
            continue_final_message: leave the final message open; excludes the former.
            chat_template: the name of one of the model's templates, or Jinja source to use in
                their place.
            variables: further names the template reads, such as `enable_thinking`.

        Returns:
            The prompt text; encode it with `add_special_tokens=False`.

        Raises:
            InvalidRequestError: a message is malformed, the template refuses or fails, or there
                is no template; `param` names the field.
        """
        return self._find_template(chat_template, tools).render(
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=self._named_tokens | variables,
        )

    def encode_chat(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        escape_special_tokens: bool = False,
        **variables: Any,
    ) -> list[int]:
        """Write a conversation as prompt token ids; see `apply_chat_template`.

        With `escape_special_tokens`, special tokens that occur in messages, tools or documents
        are encoded as the text they are; a request without any gets the same ids either way.
        """
        if escape_special_tokens:
            variables = self._special_text.mark(to_plain(variables, "chat_template_kwargs"))
        text = self._find_template(chat_template, tools).render(
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=self._named_tokens | variables,
            transform=self._special_text.mark if escape_special_tokens else None,
        )
        encode = functools.partial(self.encode, add_special_tokens=False)
        return self._special_text.encode(text, encode) if escape_special_tokens else encode(text)

    def _named_token(self, name: str) -> tuple[str | None, int | None]:
        token = self._named_tokens.get(name)
        return token, None if token is None else self.token_id(token)

    def _is_visible(self, skip_special_tokens: bool, token_id: int) -> bool:
        if skip_special_tokens and token_id in self.special_token_ids:
            return False
        return self.token_text(token_id) != ""

    def _find_template(self, wanted: str | None, tools: Sequence[Any] | None) -> ChatTemplate:
        own = self._chat_templates
        if wanted is None:
            name = "tool_use" if tools and "tool_use" in own else "default"
            if name in own:
                return own[name]
            raise InvalidRequestError(
                "the model has no chat template"
                + (f" named 'default' (it has {sorted(own)})" if own else "")
                + ": pass chat_template, or use completions",
                param="chat_template",
            )
        if wanted in own:
            return own[wanted]
        try:
            return self._compile_request_template(wanted)
        except ValueError as error:
            raise InvalidRequestError(
                f"chat_template does not compile: {error}", param="chat_template"
            ) from error


def _compile_own(name: str, source: str) -> ChatTemplate:
    try:
        return ChatTemplate(source)
    except ValueError as error:
        raise ConfigError(
            f"the model's chat template {name!r} does not compile: {error}"
        ) from error
