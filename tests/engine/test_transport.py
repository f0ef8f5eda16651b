"""Frames over a real socket pair, cut at any byte, through buffers that fill up."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillm.engine.config import EngineConfig, EngineInfo
from rillm.engine.messages import (
    Commands,
    EngineRequest,
    Failed,
    FromCore,
    PromptInfo,
    Ready,
    Replay,
    RequestTimes,
    Start,
    StepOutputs,
    StepStats,
    ToCore,
    TokenDelta,
    TokenLogprobs,
    TokenSamplingParams,
)
from rillm.engine.transport import FrameSocket, client_end, core_end

PARAMS = TokenSamplingParams(
    seed=-(2**63),
    max_tokens=2**63 - 1,
    min_tokens=1,
    temperature=0.1,
    top_p=0.9,
    top_k=3,
    min_p=0.01,
    presence_penalty=-2.0,
    frequency_penalty=2.0,
    repetition_penalty=1.1,
    eos_token_id=2,
    stop_token_ids=[3, 4],
    logit_bias={5: -100.0, 151_000: 1.5},
    allowed_token_ids=[1, 2],
    bad_words=[[1, 2], [3]],
    num_logprobs=5,
    logprob_token_ids=[7],
    num_prompt_logprobs=0,
    prompt_logprob_token_ids=[[1, -1], []],
    prompt_logprob_start=1,
    repetition_detection=(1, 8, 3),
)
REQUEST = EngineRequest(
    request_id=2**40,
    prompt_token_ids=[0, 1, 150_000],
    params=PARAMS,
    n=3,
    priority=-5,
    cache_salt="sälz",
    read_prefix_cache=False,
)
DELTA = TokenDelta(
    request_id=2**40,
    choice=2,
    token_ids=[1, 2],
    finish_reason="stop",
    stop_token_id=2,
    logprobs=[TokenLogprobs([1, 2], [-0.5, float("-inf")], 1)],
    prompt=PromptInfo(16, [TokenLogprobs([3], [-1.25], 7)], [[-0.5], []]),
    times=RequestTimes(1.0, 2.0, 3.0, 4.0, 1),
    error="why",
)
INFO = EngineInfo(
    device="cpu",
    dtype="float32",
    max_model_len=8,
    max_num_seqs=2,
    max_num_batched_tokens=4,
    block_size=2,
    num_blocks=9,
    kv_cache_bytes=100,
    memory_bytes=200,
    load_seconds=0.5,
)
TO_CORE: list[ToCore] = [
    Start(EngineConfig(model_path="/a/b", max_model_len=12, enable_prefix_caching=False)),
    Commands(),
    Commands(requests=[REQUEST], aborts=[(1, None), (2, 3)], reset_prefix_cache=True),
    Commands(
        replays=[
            Replay(request=REQUEST, outputs={0: [], 2: [1, 2]}),
            Replay(
                request=REQUEST,
                outputs={1: [3]},
                times=RequestTimes(1.0, 2.0, 3.0, 4.0, 1),
                suspects=[1],
            ),
        ]
    ),
    Commands(
        requests=[
            EngineRequest(
                request_id=0,
                prompt_token_ids=[1],
                params=TokenSamplingParams(seed=0, max_tokens=1),
            )
        ]
    ),
]
FROM_CORE: list[FromCore] = [
    Ready(INFO),
    Failed("no such model: ü", is_config_error=True),
    StepOutputs([], StepStats()),
    StepOutputs([DELTA, TokenDelta(0, 0, [])], StepStats(1, 2, 3, 4)),
]


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize("message", TO_CORE)
def test_what_the_client_sends_arrives_as_it_was(
    message: ToCore, sockets: tuple[socket.socket, socket.socket]
) -> None:
    client_end(sockets[0]).send(message)
    assert core_end(sockets[1]).receive() == [message]


@pytest.mark.parametrize("message", FROM_CORE)
def test_what_the_core_sends_arrives_as_it_was(
    message: FromCore, sockets: tuple[socket.socket, socket.socket]
) -> None:
    core_end(sockets[0]).send(message)
    assert client_end(sockets[1]).receive() == [message]


def wire_bytes(messages: list[FromCore]) -> bytes:
    one, other = socket.socketpair()
    with one, other:
        sender = core_end(one)
        for message in messages:
            sender.send(message)
        assert not sender.has_unsent
        return other.recv(1 << 20)


@given(st.lists(st.sampled_from(FROM_CORE), max_size=6), st.data())
def test_any_cut_of_the_bytes_gives_the_same_messages(
    messages: list[FromCore], data: st.DataObject
) -> None:
    stream = wire_bytes(messages) if messages else b""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    one, other = socket.socketpair()
    with one, other:
        receiver = client_end(other)
        received: list[FromCore] = []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            one.sendall(stream[start:end])
            received += receiver.receive()
        assert received == messages
        assert receiver.receive() == []


def test_frames_are_a_little_endian_length_and_a_body() -> None:
    stream = wire_bytes([StepOutputs([], StepStats())])
    assert int.from_bytes(stream[:4], "little") == len(stream) - 4


def big(number: int) -> StepOutputs:
    return StepOutputs([TokenDelta(number, 0, list(range(20_000)))], StepStats())


def test_a_reader_that_is_late_holds_nobody_up_and_loses_nothing(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = core_end(sockets[0]), client_end(sockets[1])
    messages = [big(number) for number in range(60)]
    for message in messages:
        sender.send(message)
    assert sender.has_unsent
    received: list[FromCore] = []
    for _ in range(10_000):
        received += receiver.receive()
        sender.flush()
        if len(received) == len(messages):
            break
    assert received == messages
    assert not sender.has_unsent
    assert receiver.receive() == []


def test_messages_sent_before_the_end_are_taken_before_the_end_is_reported(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    sender, receiver = core_end(sockets[0]), client_end(sockets[1])
    sender.send(FROM_CORE[0])
    sender.send(FROM_CORE[1])
    sender.close()
    assert receiver.receive() == FROM_CORE[:2]
    with pytest.raises(EOFError):
        receiver.receive()


def test_the_end_in_the_middle_of_a_frame_is_an_end(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    sockets[0].sendall(wire_bytes([FROM_CORE[0]])[:-1])
    sockets[0].close()
    receiver = client_end(sockets[1])
    assert receiver.receive() == []
    with pytest.raises(EOFError):
        receiver.receive()


def test_sending_to_an_end_that_is_gone_is_an_error(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    sockets[1].close()
    with pytest.raises(OSError, match="pipe|reset"):
        core_end(sockets[0]).send(FROM_CORE[0])


def test_a_message_that_cannot_be_encoded_leaves_the_stream_whole(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    sender: FrameSocket[FromCore, ToCore] = core_end(sockets[0])
    with pytest.raises(OverflowError):
        sender.send(StepOutputs([TokenDelta(2**80, 0, [])], StepStats()))
    sender.send(FROM_CORE[0])
    assert client_end(sockets[1]).receive() == [FROM_CORE[0]]
