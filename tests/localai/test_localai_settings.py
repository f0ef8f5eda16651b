"""What LoadModel is sent, as settings of an engine and of its formats."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from rillm.engine_args import AsyncEngineArgs
from rillm.errors import ConfigError
from rillm.localai.backend_pb2 import ModelOptions
from rillm.localai.config import watch_interval_s
from rillm.localai.settings import ModelSettings, read_model_options


def read(**options: Any) -> ModelSettings:
    return read_model_options(ModelOptions(**({"Model": "org/name"} | options)))


def test_nothing_but_a_model_leaves_all_to_the_engine() -> None:
    settings = read(ContextSize=4096, NBatch=512, MMap=True, SwapSpace=4, TrustRemoteCode=True)
    assert settings == ModelSettings(
        identity="org/name", engine_args=AsyncEngineArgs(model="org/name")
    )


def test_a_file_that_is_there_wins_over_the_name(tmp_path: Path) -> None:
    assert read(ModelFile=str(tmp_path)).engine_args.model == str(tmp_path)
    assert read(ModelFile=str(tmp_path / "none")).engine_args.model == "org/name"
    assert read(ModelFile=str(tmp_path)).identity == "org/name"


def test_options_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "localai.md").read_text()
    for name in ("tool_parser", "reasoning_parser", "tool_parser_plugin", "localai_message"):
        assert f"| `{name}:" in page
        assert read(Options=[f"{name}:deltas_only"]) != read()


def test_later_sources_win() -> None:
    typed = {"MaxModelLen": 512, "DType": "float32", "EnforceEager": True, "Threads": 3}
    flags = ["--max-model-len:256", "--max-num-seqs=8", "--seed: 5"]
    settings = read(**typed, Options=flags, EngineArgs='{"max_model_len": 128}')
    args = settings.engine_args
    assert (args.max_model_len, args.dtype, args.enforce_eager) == (128, "float32", True)
    assert (args.max_num_seqs, args.num_threads, args.seed) == (8, 3, 5)


def test_options_name_the_formats() -> None:
    settings = read(
        Options=[
            "tool_parser:hermes",
            " reasoning-parser : qwen3 ",
            "tool_parser_plugin:c:/file.py",
            "localai_message:deltas_only",
            "gpu",
            "use_jinja:true",
        ]
    )
    assert (settings.tool_parser, settings.reasoning_parser) == ("hermes", "qwen3")
    assert (settings.tool_parser_plugin, settings.deltas_only) == ("c:/file.py", True)


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--no-such-flag", {}),
        ("--max-num-seqs:many", {}),
        ("--max-num-seqs", {}),
        ("--enforce-eager", {"enforce_eager": True}),
        ("--enable_prefix_caching:false", {"enable_prefix_caching": False}),
        ("--gpu-memory-utilization=0.5", {"gpu_memory_utilization": 0.5}),
        ("--dtype:float32", {"dtype": "float32"}),
        ("--model:other", {}),
    ],
)
def test_flags_are_engine_arguments_and_bad_ones_have_no_effect(
    flag: str, expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        args = read(Options=[flag]).engine_args
    assert args == AsyncEngineArgs(**({"model": "org/name"} | expected))
    assert bool(caplog.records) == (not expected)


def test_what_localai_adds_for_a_vllm_backend_is_accepted() -> None:
    text = '{"enable_prefix_caching":true,"enable_chunked_prefill":true}'
    assert read(EngineArgs=text).engine_args.enable_prefix_caching


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"EngineArgs": '{"max_num_seq": 4}'}, "did you mean 'max_num_seqs'"),
        ({"EngineArgs": '{"zebra": 4}'}, "'zebra', which is unknown"),
        ({"EngineArgs": '{"model": "x"}'}, "'model'"),
        ({"EngineArgs": '{"max_num_seqs": "4"}'}, "EngineArgs.max_num_seqs"),
        ({"EngineArgs": "{"}, "EngineArgs must be a JSON object"),
        ({"EngineArgs": "[]"}, "EngineArgs must be a JSON object"),
        ({"Quantization": "awq"}, "Quantization"),
        ({"LoraAdapter": "x"}, "LoraAdapter"),
        ({"LoraAdapters": ["x"]}, "LoraAdapters"),
        ({"LoadFormat": "gguf"}, "LoadFormat"),
        ({"Options": ["localai_message:none"]}, "localai_message"),
        ({"Model": ""}, "Model is empty"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(**options)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 2.0),
        ({"LOCALAI_BACKEND_PARENT_WATCH": "off"}, None),
        ({"LOCALAI_BACKEND_PARENT_WATCH": "0"}, None),
        ({"LOCALAI_BACKEND_PARENT_WATCH": "true"}, 2.0),
        ({"LOCALAI_BACKEND_PARENT_WATCH_INTERVAL": "500ms"}, 0.5),
        ({"LOCALAI_BACKEND_PARENT_WATCH_INTERVAL": "3"}, 3.0),
        ({"LOCALAI_BACKEND_PARENT_WATCH_INTERVAL": "1m"}, 60.0),
    ],
)
def test_the_watch_over_the_parent_is_set_by_the_environment(
    environment: dict[str, str], expected: float | None
) -> None:
    assert watch_interval_s(environment) == expected


def test_an_interval_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a duration"):
        watch_interval_s({"LOCALAI_BACKEND_PARENT_WATCH_INTERVAL": "soon"})
