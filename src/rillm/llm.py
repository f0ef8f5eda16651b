"""LLM: the engine for scripts. Prompts in, finished outputs back, a progress bar meanwhile.

The same core, input checks and output states as `AsyncLLM`, stepped in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from rillm.constraints.checker import GrammarChecker, read_markers
from rillm.engine.core import EngineCore
from rillm.engine.messages import Commands
from rillm.engine_args import BUNDLED_MODEL, EngineArgs
from rillm.errors import EngineGenerateError, InvalidRequestError
from rillm.input_processor import InputProcessor, Limits, PromptType
from rillm.models.config import read_generation_config
from rillm.output_processor import RequestState
from rillm.outputs import RequestOutput
from rillm.sampling_params import RequestOutputKind, SamplingParams
from rillm.text.tokenizer import Tokenizer

Message = dict[str, Any]


class LLM:
    """A model that generates in batches.

    Args:
        model: directory or hub id; by default the small one that comes with the package.
        **settings: other fields of `EngineArgs`.

    Raises:
        ConfigError: the model cannot be loaded, or a setting is out of range.
        TypeError: there is no such setting.
    """

    def __init__(self, model: str = BUNDLED_MODEL, **settings: Any) -> None:
        args = EngineArgs(model=model, **settings)
        directory = args.model_directory()
        self._core = EngineCore(args.engine_config(directory))
        self._tokenizer = (
            None
            if args.skip_tokenizer_init
            else Tokenizer.from_directory(args.tokenizer_directory(directory))
        )
        self._generation = read_generation_config(directory)
        self._inputs = InputProcessor(
            self._core.model_config,
            self._generation,
            self._tokenizer,
            max_logprobs=args.max_logprobs,
            seed=args.seed,
        )
        sizes = self._core.plan
        self._limits = Limits(max_model_len=sizes.max_model_len, max_num_seqs=sizes.max_num_seqs)
        tokenizer_directory = args.tokenizer_directory(directory)
        self._grammars = GrammarChecker(
            lambda: read_markers(tokenizer_directory), self._core.model_config.vocab_size
        )
        self._num_requests = 0

    def get_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            InvalidRequestError: the engine runs without one.
        """
        if self._tokenizer is None:
            raise InvalidRequestError("this engine runs without a tokenizer")
        return self._tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """Sampling params as the checkpoint's generation config recommends them."""
        return SamplingParams(**self._generation.sampling_defaults())

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Generate for one or many prompts.

        Args:
            prompts: text, a dict with `prompt` or `prompt_token_ids`, or a list of these; a
                list of token ids is one prompt.
            sampling_params: one for all, or one for each; None for the model's defaults.
            use_tqdm: show a progress bar.

        Returns:
            One finished output for each prompt, in order.

        Raises:
            InvalidRequestError: a prompt or a parameter is not acceptable; nothing was run.
            EngineGenerateError: the engine failed on a request.
        """
        many = _as_list(prompts)
        params = self._params_for(many, sampling_params)
        states: dict[int, RequestState] = {}
        requests = []
        for prompt, wanted in zip(many, params, strict=True):
            self._num_requests += 1
            number = self._num_requests
            grammar = self._grammars.check_now(wanted)
            processed = self._inputs.process(number, prompt, wanted, self._limits, grammar=grammar)
            processed.params.output_kind = RequestOutputKind.FINAL_ONLY
            requests.append(processed.request)
            states[number] = RequestState(processed, str(number - 1), self._tokenizer)
        outputs: dict[int, RequestOutput] = {}
        self._core.apply(Commands(requests))
        try:
            with tqdm(total=len(many), desc="Generating", disable=not use_tqdm) as progress:
                self._run(states, outputs, progress)
        except BaseException:
            self._core.apply(Commands(aborts=[(number, None) for number in states]))
            raise
        return [outputs[number] for number in states]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        tools: list[dict[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template_kwargs: dict[str, Any] | None = None,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Generate the next turn of one or many conversations.

        Args:
            messages: a conversation in OpenAI's form, or a list of them.
            sampling_params: one for all, or one for each; None for the model's defaults.
            tools: functions the model may call, in OpenAI's form, for all conversations.
            chat_template: used instead of the model's.
            add_generation_prompt: open the assistant's turn.
            continue_final_message: go on with the last message instead of answering it.
            chat_template_kwargs: more variables for the template.
            use_tqdm: show a progress bar.

        Returns:
            One finished output for each conversation, in order.

        Raises:
            InvalidRequestError: a conversation cannot be rendered, or as `generate`.
        """
        conversations: list[Any] = list(messages)
        if conversations and isinstance(conversations[0], dict):
            conversations = [conversations]
        tokenizer = self.get_tokenizer()
        prompts: list[PromptType] = [
            {
                "prompt_token_ids": tokenizer.encode_chat(
                    list(conversation),
                    tools=tools,
                    chat_template=chat_template,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=continue_final_message,
                    **(chat_template_kwargs or {}),
                )
            }
            for conversation in conversations
        ]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm)

    def _params_for(
        self,
        prompts: list[PromptType],
        params: SamplingParams | Sequence[SamplingParams] | None,
    ) -> list[SamplingParams]:
        if params is None:
            params = self.get_default_sampling_params()
        if isinstance(params, SamplingParams):
            return [params] * len(prompts)
        if len(params) != len(prompts):
            raise InvalidRequestError(
                f"{len(params)} sampling_params for {len(prompts)} prompts, must be as many or one",
                param="sampling_params",
            )
        return list(params)

    def _run(
        self,
        states: dict[int, RequestState],
        outputs: dict[int, RequestOutput],
        progress: tqdm[Any],
    ) -> None:
        while len(outputs) < len(states):
            if self._core.is_blocked:
                self._core.grammars.wait()
            for delta in self._core.step().deltas:
                if delta.error is not None:
                    raise EngineGenerateError(delta.error)
                state = states[delta.request_id]
                if state.add(delta):
                    self._core.apply(Commands(aborts=[(delta.request_id, delta.choice)]))
                output = state.take()
                if output is not None:
                    outputs[delta.request_id] = output
                    progress.update()


def _as_list(prompts: PromptType | Sequence[PromptType]) -> list[PromptType]:
    if isinstance(prompts, str | dict):
        return [prompts]
    many: list[Any] = list(prompts)
    if many and isinstance(many[0], int):
        return [many]
    return many
