"""The wire contract of a LocalAI backend, written down on its own, and a client that behaves as Go.

Descriptors are made of the table below, not of the package's own: two transcriptions of the same
contract that have to agree.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

CONTRACT = """
HealthMessage
Reply: message bytes 1, tokens int32 2, prompt_tokens int32 3, timing_prompt_processing double 4
Reply: timing_token_generation double 5, audio bytes 6, logprobs bytes 7, chat_deltas *ChatDelta 8
ChatDelta: content string 1, reasoning_content string 2, tool_calls *ToolCallDelta 3
ToolCallDelta: index int32 1, id string 2, name string 3, arguments string 4
Message: role string 1, content string 2, name string 3, tool_call_id string 4
Message: reasoning_content string 5, tool_calls string 6
Result: message string 1, success bool 2
StatusResponse: state int32 1, memory MemoryUsageData 2
MemoryUsageData: total uint64 1, breakdown map:uint64 2
TokenizationResponse: length int32 1, tokens *int32 2
DetokenizeRequest: tokens *int32 1
DetokenizeResponse: content string 1
EmbeddingResult: embeddings *float 1, tokens int32 2, dim int32 3, prompt_tokens int32 4
EmbeddingResult: layout int32 5
PredictOptions: Prompt string 1, Seed int32 2, Threads int32 3, Tokens int32 4, TopK int32 5
PredictOptions: Repeat int32 6, Temperature float 9, Penalty float 10, StopPrompts *string 13
PredictOptions: IgnoreEOS bool 14, TailFreeSamplingZ float 15, TypicalP float 16
PredictOptions: FrequencyPenalty float 17, PresencePenalty float 18, Mirostat int32 19
PredictOptions: MirostatETA float 20, MirostatTAU float 21, LogitBias string 23
PredictOptions: PromptCacheAll bool 27, Grammar string 29, TopP float 32
PredictOptions: EmbeddingTokens *int32 35, Embeddings string 36, Images *string 42
PredictOptions: UseTokenizerTemplate bool 43, Messages *Message 44, Videos *string 45
PredictOptions: Audios *string 46, CorrelationId string 47, Tools string 48, ToolChoice string 49
PredictOptions: Logprobs int32 50, TopLogprobs int32 51, Metadata map:string 52, MinP float 53
PredictOptions: ModelIdentity string 54
ModelOptions: Model string 1, ContextSize int32 2, Seed int32 3, NBatch int32 4, MMap bool 7
ModelOptions: Threads int32 15, ModelFile string 21, LoraAdapter string 36, Quantization string 40
ModelOptions: GPUMemoryUtilization float 50, TrustRemoteCode bool 51, EnforceEager bool 52
ModelOptions: SwapSpace int32 53, MaxModelLen int32 54, TensorParallelSize int32 55
ModelOptions: LoadFormat string 58, ModelPath string 59, LoraAdapters *string 60
ModelOptions: Options *string 62, DisableLogStatus bool 66, DType string 67
ModelOptions: LimitImagePerPrompt int32 68, LimitVideoPerPrompt int32 69
ModelOptions: LimitAudioPerPrompt int32 70, EngineArgs string 73
"""
UNINITIALIZED, BUSY, READY, ERROR = 0, 1, 2, -1
LAYOUT_FINAL = 1

RESPONSES = {
    "Health": "Reply",
    "LoadModel": "Result",
    "Predict": "Reply",
    "PredictStream": "Reply",
    "TokenizeString": "TokenizationResponse",
    "Detokenize": "DetokenizeResponse",
    "Embedding": "EmbeddingResult",
    "Status": "StatusResponse",
    "Free": "Result",
}
_LIMIT = 50 * 2**20
_OPTIONS = (
    ("grpc.max_receive_message_length", _LIMIT),
    ("grpc.max_send_message_length", _LIMIT + 2**22),
)


def table() -> dict[str, dict[str, tuple[int, str]]]:
    """Messages to fields to (number, type)."""
    messages: dict[str, dict[str, tuple[int, str]]] = {}
    for line in CONTRACT.strip().splitlines():
        name, _, fields = line.partition(": ")
        found = messages.setdefault(name, {})
        for field in filter(None, fields.split(", ")):
            field_name, kind, number = field.split()
            found[field_name] = (int(number), kind)
    return messages


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="contract.proto", package="backend", syntax="proto3"
    )
    for name, fields in table().items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            _add_field(message, field_name, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"backend.{name}"))
        for name in table()
    }


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number)
    is_map = kind.startswith("map:")
    field.label = field.LABEL_REPEATED if is_map or kind.startswith("*") else field.LABEL_OPTIONAL
    kind = kind.removeprefix("*").removeprefix("map:")
    if is_map:
        entry = message.nested_type.add(name="".join(map(str.title, name.split("_"))) + "Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, kind)
        field.type, field.type_name = (
            field.TYPE_MESSAGE,
            f".backend.{message.name}.{entry.name}",
        )
    elif kind.islower() or kind[-1].isdigit():
        field.type = getattr(field, f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".backend.{kind}"


classes = _classes()


class Client:
    """A new connection for each call, as LocalAI has it; no deadlines on answers."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self._address = address
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def call(self, rpc: str, request: Any, timeout_s: float | None = None) -> Any:
        """One call with one answer."""
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            method = channel.unary_unary(
                f"/backend.Backend/{rpc}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=classes[RESPONSES[rpc]].FromString,
            )
            return await method(request, timeout=timeout_s, metadata=self._metadata)

    async def stream(self, **options: Any) -> AsyncIterator[Any]:
        """The Replies of PredictStream; leaving early cancels the call."""
        request = predict_options(**options)
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            method = channel.unary_stream(
                "/backend.Backend/PredictStream",
                request_serializer=type(request).SerializeToString,
                response_deserializer=classes["Reply"].FromString,
            )
            call = method(request, metadata=self._metadata)
            try:
                async for reply in call:
                    yield reply
            finally:
                call.cancel()

    async def replies(self, received: list[Any] | None = None, **options: Any) -> list[Any]:
        """All Replies of PredictStream; those before a failure stand in `received`."""
        received = [] if received is None else received
        async for reply in self.stream(**options):
            received.append(reply)
        return received

    async def predict(self, **options: Any) -> Any:
        """The Reply of Predict."""
        return await self.call("Predict", predict_options(**options))

    async def load(self, **options: Any) -> Any:
        """The Result of LoadModel."""
        return await self.call("LoadModel", classes["ModelOptions"](**options))

    async def health(self, timeout_s: float = 10) -> bytes:
        """What Health says."""
        reply = await self.call("Health", classes["HealthMessage"](), timeout_s)
        return bytes(reply.message)

    async def state(self) -> int:
        """What Status says."""
        status = await self.call("Status", classes["HealthMessage"]())
        return int(status.state)

    async def free(self) -> Any:
        """The Result of Free."""
        return await self.call("Free", classes["HealthMessage"]())

    async def tokenize(self, text: str, **options: Any) -> list[int]:
        """The tokens of TokenizeString."""
        response = await self.call("TokenizeString", predict_options(Prompt=text, **options))
        assert response.length == len(response.tokens)
        return list(response.tokens)

    async def detokenize(self, tokens: list[int]) -> str:
        """The text of Detokenize."""
        request = classes["DetokenizeRequest"](tokens=tokens)
        return str((await self.call("Detokenize", request)).content)


def predict_options(**options: Any) -> Any:
    """PredictOptions with what LocalAI always sends, but greedy and without a limit of tokens."""
    defaults = {"TopK": 40, "TopP": 0.95, "TailFreeSamplingZ": 1.0, "TypicalP": 1.0}
    return classes["PredictOptions"](**(defaults | options))


def chat(text: str, **options: Any) -> dict[str, Any]:
    """Options of a chat with one message, for the model's own template."""
    message = classes["Message"](role="user", content=text)
    return {"UseTokenizerTemplate": True, "Messages": [message], **options}
