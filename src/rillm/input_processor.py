"""InputProcessor: a prompt and its sampling params to what the engine understands.

Everything about a request that needs the model or the tokenizer is checked here, before the
engine hears of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import msgspec

from rillm.admission import CLIENT
from rillm.engine.messages import EngineRequest, TokenSamplingParams
from rillm.errors import ContextLengthError, InvalidRequestError
from rillm.models.config import GenerationConfig, ModelConfig
from rillm.sampling_params import MAX_BAD_WORDS, MIN_TEMPERATURE, SamplingParams
from rillm.text.tokenizer import Tokenizer


class TextPrompt(TypedDict):
    """A prompt as text."""

    prompt: str
    cache_salt: NotRequired[str]


class TokensPrompt(TypedDict):
    """A prompt as token ids."""

    prompt_token_ids: list[int]
    prompt: NotRequired[str]
    cache_salt: NotRequired[str]


MAX_PRIORITY = 2**63 - 1

PromptType = str | list[int] | TextPrompt | TokensPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the engine can take, known when it is ready."""

    max_model_len: int
    max_num_seqs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedRequest:
    """A request that has passed all checks."""

    request: EngineRequest
    prompt: str | None
    """The prompt's text, where there is one."""
    params: SamplingParams
    """A copy of its own: the caller may reuse and change the original."""


class InputProcessor:
    """Checks requests against one model.

    Args:
        model: the checkpoint's facts.
        generation: the checkpoint's recommendations; its end tokens count too.
        tokenizer: None when only token ids are served.
        max_logprobs: most alternatives a request may ask for; -1 for the whole vocabulary.
        seed: source of seeds for requests without one; None for fresh ones.
    """

    def __init__(
        self,
        model: ModelConfig,
        generation: GenerationConfig,
        tokenizer: Tokenizer | None,
        *,
        max_logprobs: int,
        seed: int | None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        vocab_size = model.vocab_size
        self.max_logprobs = vocab_size if max_logprobs == -1 else min(max_logprobs, vocab_size)
        self._seeds: random.Random = (
            random.Random(seed) if seed is not None else (random.SystemRandom())
        )
        eos = tokenizer.eos_token_id if tokenizer is not None else None
        others = [*generation.eos_token_ids, *model.eos_token_ids]
        if eos is None and others:
            eos = others[0]
        self._eos_token_id = eos
        self._other_eos_token_ids = [i for i in dict.fromkeys(others) if i != eos]

    def process(
        self,
        request_id: int,
        prompt: PromptType,
        params: SamplingParams,
        limits: Limits,
        priority: int = 0,
        grammar: str | None = None,
    ) -> ProcessedRequest:
        """Check a request and resolve it to numbers and token ids.

        Args:
            request_id: the engine's id for it.
            prompt: text or token ids.
            params: what was asked for.
            limits: of the running engine.
            priority: lower runs earlier.
            grammar: what `structured_outputs` says, checked.

        Raises:
            InvalidRequestError: the prompt or a parameter is not acceptable.
            ContextLengthError: the prompt leaves no room for a single token.
        """
        if not isinstance(params, SamplingParams):
            raise InvalidRequestError(
                "sampling_params must be a SamplingParams", param="sampling_params"
            )
        params = msgspec.structs.replace(params)
        if type(priority) is not int or abs(priority) > MAX_PRIORITY:
            raise InvalidRequestError(
                f"priority is {priority!r}, must be an integer from -2**63 + 1 to 2**63 - 1",
                param="priority",
            )
        text, token_ids, salt = self._prompt(prompt)
        self._check_prompt(token_ids, limits)
        # A copy, as of the params: the caller may go on with the list.
        token_ids = list(token_ids)
        self._check_params(params, len(token_ids))
        if params.n > limits.max_num_seqs:
            raise InvalidRequestError(
                f"n is {params.n}, must be at most max_num_seqs ({limits.max_num_seqs})",
                param="n",
            )
        room = limits.max_model_len - len(token_ids)
        reports_prompt = (
            params.prompt_logprobs is not None or params.prompt_logprob_token_ids is not None
        )
        skip_cache = params.skip_reading_prefix_cache
        request = EngineRequest(
            request_id=request_id,
            prompt_token_ids=token_ids,
            params=self._token_params(params, room, grammar),
            n=params.n,
            priority=priority,
            cache_salt=salt,
            read_prefix_cache=not (reports_prompt if skip_cache is None else skip_cache),
            client=CLIENT.get(),
        )
        return ProcessedRequest(request=request, prompt=text, params=params)

    def _prompt(self, prompt: PromptType) -> tuple[str | None, list[int], str | None]:
        """Take a prompt apart: its text, its token ids, its cache salt."""
        if isinstance(prompt, str):
            return prompt, self._encode(prompt), None
        if isinstance(prompt, list):
            return None, prompt, None
        if not isinstance(prompt, dict):
            raise InvalidRequestError(
                "prompt must be a string, a list of token ids, or a dict with `prompt` or "
                "`prompt_token_ids`",
                param="prompt",
            )
        fields: dict[str, Any] = dict(prompt)
        text, salt = fields.get("prompt"), fields.get("cache_salt")
        for name, value in (("prompt", text), ("cache_salt", salt)):
            if value is not None and not isinstance(value, str):
                raise InvalidRequestError(f"{name} must be a string", param=name)
        if salt is not None and not (salt and _is_unicode(salt)):
            raise InvalidRequestError(
                "cache_salt must be valid Unicode text and not empty", param="cache_salt"
            )
        if "prompt_token_ids" in fields:
            return text, fields["prompt_token_ids"], salt
        if text is None:
            raise InvalidRequestError(
                "prompt has neither `prompt` nor `prompt_token_ids`", param="prompt"
            )
        return text, self._encode(text), salt

    def _encode(self, text: str) -> list[int]:
        if self._tokenizer is None:
            raise InvalidRequestError(
                "prompt is text, but this engine runs without a tokenizer: send prompt_token_ids",
                param="prompt",
            )
        return self._tokenizer.encode(text)

    def _check_prompt(self, token_ids: object, limits: Limits) -> None:
        name = "prompt_token_ids"
        if not isinstance(token_ids, list):
            raise InvalidRequestError(f"{name} must be a list of token ids", param=name)
        if not token_ids:
            raise InvalidRequestError("prompt is empty, must hold at least one token", param=name)
        if not all(type(token_id) is int for token_id in token_ids):
            raise InvalidRequestError(f"{name} must be a list of integers", param=name)
        self._check_vocabulary(name, token_ids)
        if len(token_ids) >= limits.max_model_len:
            raise ContextLengthError(
                f"prompt has {len(token_ids)} tokens, but the maximum context length is "
                f"{limits.max_model_len} tokens, at least one of them for the output",
                param="input_tokens",
            )

    def _check_params(self, params: SamplingParams, prompt_len: int) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(params, name)
            if count is not None:
                count = self._model.vocab_size if count == -1 else count
                # Checked ids (at most 128 of them) set the count of `logprobs`, and only of that.
                is_chosen = name == "logprobs" and params.logprob_token_ids is not None
                if count > self.max_logprobs and not is_chosen:
                    raise InvalidRequestError(
                        f"{name} is {count}, must be at most {self.max_logprobs} (max_logprobs)",
                        param=name,
                    )
        for name in ("logit_bias", "stop_token_ids", "allowed_token_ids", "logprob_token_ids"):
            self._check_vocabulary(name, list(getattr(params, name) or []))
        self._check_candidates(params, prompt_len)

    def _check_candidates(self, params: SamplingParams, prompt_len: int) -> None:
        rows = params.prompt_logprob_token_ids
        name = "prompt_logprob_token_ids"
        if rows is None:
            return
        expected = prompt_len - 1 - (params.prompt_logprob_start or 0)
        if len(rows) != expected:
            raise InvalidRequestError(
                f"{name} has {len(rows)} rows, must have {expected}: prompt length - 1 - "
                "prompt_logprob_start",
                param=name,
            )
        for row in rows:
            if len(row) > self.max_logprobs:
                raise InvalidRequestError(
                    f"{name} has a row of {len(row)} ids, at most {self.max_logprobs}", param=name
                )
            self._check_vocabulary(name, [token_id for token_id in row if token_id != -1])

    def _check_vocabulary(self, name: str, token_ids: list[int]) -> None:
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < self._model.vocab_size:
            outside = next(i for i in token_ids if not 0 <= i < self._model.vocab_size)
            raise InvalidRequestError(
                f"{name} holds token id {outside}, which is out of vocabulary: must be from 0 to "
                f"{self._model.vocab_size - 1}",
                param=name,
            )

    def _token_params(
        self, params: SamplingParams, room: int, grammar: str | None
    ) -> TokenSamplingParams:
        """Resolve what is textual or left open.

        Args:
            params: checked.
            room: tokens left in the context.
            grammar: of the output.
        """
        seed = params.seed
        repetition = params.repetition_detection
        ends = [] if params.ignore_eos else self._other_eos_token_ids
        return TokenSamplingParams(
            seed=self._seeds.getrandbits(63) if seed is None else seed,
            max_tokens=min(params.max_tokens or room, room),
            min_tokens=params.min_tokens,
            # Subclasses of float, such as NumPy's, cannot cross to the core.
            temperature=0.0
            if params.is_greedy
            else float(max(params.temperature, MIN_TEMPERATURE)),
            top_p=float(params.top_p),
            top_k=max(params.top_k, 0),
            min_p=float(params.min_p),
            presence_penalty=float(params.presence_penalty),
            frequency_penalty=float(params.frequency_penalty),
            repetition_penalty=float(params.repetition_penalty),
            eos_token_id=None if params.ignore_eos else self._eos_token_id,
            stop_token_ids=[*(params.stop_token_ids or []), *ends],
            logit_bias={i: float(b) for i, b in (params.logit_bias or {}).items()} or None,
            allowed_token_ids=params.allowed_token_ids,
            bad_words=self._bad_words(params.bad_words or []) or None,
            num_logprobs=self._count(params.logprobs),
            logprob_token_ids=params.logprob_token_ids,
            num_prompt_logprobs=self._count(params.prompt_logprobs),
            prompt_logprob_token_ids=params.prompt_logprob_token_ids,
            prompt_logprob_start=params.prompt_logprob_start or 0,
            grammar=grammar,
            repetition_detection=None
            if repetition is None
            else (
                repetition.min_pattern_size,
                repetition.max_pattern_size,
                repetition.min_count,
            ),
        )

    def _count(self, count: int | None) -> int | None:
        return self._model.vocab_size if count == -1 else count

    def _bad_words(self, words: list[str]) -> list[list[int]]:
        """Token sequences of each word, at the start of a text and after a space."""
        if not words:
            return []
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise InvalidRequestError("bad_words needs a tokenizer", param="bad_words")
        sequences: dict[tuple[int, ...], None] = {}
        for word in words:
            for text in (word, " " + word.lstrip()):
                ids = tokenizer.encode(text, add_special_tokens=False)
                if ids:
                    sequences[tuple(ids)] = None
        if not sequences or len(sequences) > MAX_BAD_WORDS:
            raise InvalidRequestError(
                f"bad_words makes {len(sequences)} token sequences, must be from 1 to "
                f"{MAX_BAD_WORDS}",
                param="bad_words",
            )
        return [list(ids) for ids in sequences]


def _is_unicode(text: str) -> bool:
    """Whether a string has no lone surrogates, so that it can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
