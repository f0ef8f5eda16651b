"""Chat in the terminal: questions from standard input, answers to standard output as they come."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import uuid
from contextlib import aclosing
from typing import Any

from rillm.async_llm import AsyncLLM
from rillm.errors import RequestError
from rillm.formats.events import ContentDelta, ReasoningDelta, StreamEvent
from rillm.output_formats import OutputFormats, choose_formats
from rillm.server.protocol import ChatCompletionRequest
from rillm.server.sampling import sampling_params
from rillm.streams import EventStream, Generation


def chat_in_terminal(llm: AsyncLLM, settings: ChatCompletionRequest, prompt: str | None) -> None:
    """Talk until the input ends, or answer one prompt.

    Args:
        llm: the engine; it may still be loading.
        settings: the messages to begin with, sampling options and template variables.
        prompt: answer only this; None reads questions from standard input.

    Raises:
        RequestError: the one prompt cannot be answered.
        ConfigError: the model cannot be loaded.
        EngineError: generation failed.
        KeyboardInterrupt: the answer to the one prompt was interrupted.
    """
    with asyncio.Runner() as runner:
        conversation = _Conversation(llm, settings)
        if prompt is not None:
            runner.run(conversation.answer(prompt))
        else:
            _converse(conversation, runner)


_DIM, _NORMAL = "\033[2m", "\033[0m"


class _Printer:
    """Writes an answer as it comes: reasoning dimmed on a terminal, and a line of its own."""

    def __init__(self) -> None:
        self._is_reasoning = False
        self._dims = sys.stdout.isatty()

    def show(self, event: StreamEvent) -> None:
        match event:
            case ReasoningDelta(text):
                self._switch(True)
                _write(text)
            case ContentDelta(text):
                self._switch(False)
                _write(text)

    def end(self) -> None:
        self._switch(False)
        _write("\n")

    def _switch(self, is_reasoning: bool) -> None:
        if is_reasoning == self._is_reasoning:
            return
        self._is_reasoning = is_reasoning
        codes = (_DIM if is_reasoning else _NORMAL) if self._dims else ""
        _write(codes if is_reasoning else f"{codes}\n\n")


class _Conversation:
    """The messages so far, and the engine that goes on with them."""

    def __init__(self, llm: AsyncLLM, settings: ChatCompletionRequest) -> None:
        self._llm = llm
        self._settings = settings
        self._messages = list(settings.messages)
        tokenizer = llm.get_tokenizer()
        self._formats: OutputFormats = choose_formats(llm.directory, tokenizer, llm.args.model)

    async def answer(self, question: str) -> None:
        """Print the answer as it comes.

        What was said stays part of the conversation, also when the answer was interrupted.
        """
        question_message = {"role": "user", "content": question}
        generation = self._generation([*self._messages, question_message])
        said: list[str] = []
        try:
            await self._print(EventStream(self._llm, [generation]), said)
        finally:
            if said:
                answer_message = {"role": "assistant", "content": "".join(said)}
                self._messages += [question_message, answer_message]

    def _generation(self, messages: list[dict[str, Any]]) -> Generation:
        variables = self._settings.chat_template_kwargs or {}
        defaults = self._llm.generation_config
        max_tokens = self._settings.max_tokens
        token_ids = self._llm.get_tokenizer().encode_chat(messages, **variables)
        return Generation(
            prompt_token_ids=token_ids,
            sampling_params=sampling_params(
                self._settings,
                defaults,
                max_tokens=defaults.max_new_tokens if max_tokens is None else max_tokens,
                logprobs=None,
            ),
            request_id=uuid.uuid4().hex,
            format=self._formats.for_prompt(token_ids, None),
        )

    async def _print(self, stream: EventStream, said: list[str]) -> None:
        printer = _Printer()
        async with aclosing(stream.deltas()) as batches:
            async for deltas in batches:
                for event in [event for delta in deltas for event in delta.events]:
                    printer.show(event)
                    if isinstance(event, ContentDelta):
                        said.append(event.text)
        printer.end()


def _converse(conversation: _Conversation, runner: asyncio.Runner) -> None:
    # Importing it gives `input` a history; some platforms have none.
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")
    while True:
        try:
            question = input("> ")
        except EOFError:
            _write("\n")
            return
        except KeyboardInterrupt:
            _write("\n")
            continue
        if not question.strip():
            continue
        try:
            runner.run(conversation.answer(question))
        except KeyboardInterrupt:
            _write("\n")
        except RequestError as error:
            _write(f"{error}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
