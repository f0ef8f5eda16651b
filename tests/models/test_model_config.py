from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FAMILIES, make_checkpoint

from rillm.errors import ConfigError
from rillm.models.config import GenerationConfig, ModelConfig, RopeScaling, read_generation_config
from rillm.models.hub import resolve_model
from rillm.models.registry import supported_architectures

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def read(path: Path, base: dict[str, Any] = LLAMA, **changes: Any) -> ModelConfig:
    (path / "config.json").write_text(json.dumps(base | changes))
    return ModelConfig.from_directory(path)


def test_a_minimal_config_takes_the_defaults_of_the_family(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert (config.num_kv_heads, config.head_dim) == (4, 16)
    assert (config.rope_theta, config.rope_scaling, config.rms_norm_eps) == (10000.0, None, 1e-6)
    assert (config.dtype, config.eos_token_ids, config.bos_token_id) == ("float32", (), None)
    assert not any([config.tie_word_embeddings, config.attention_bias, config.qk_norm])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_writes_is_read(tmp_path: Path, family: str) -> None:
    config = ModelConfig.from_directory(make_checkpoint(family, tmp_path, dtype="bfloat16"))
    assert (config.num_heads, config.num_kv_heads, config.num_layers) == (4, 2, 3)
    assert (config.dtype, config.eos_token_ids) == ("bfloat16", (256,))
    assert config.layer_windows == ((24,) * 3 if family == "mistral" else (None,) * 3)
    assert (config.attention_bias, config.o_bias) == (family == "qwen2", False)
    assert config.qk_norm == (family == "qwen3")


def test_old_checkpoints_state_rope_and_dtype_by_other_keys(tmp_path: Path) -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    old = read(
        tmp_path,
        rope_theta=500000.0,
        rope_scaling=scaling | {"type": "llama3"},
        torch_dtype="float16",
        eos_token_id=[1, 2],
    )
    new = read(
        tmp_path,
        rope_parameters=scaling | {"rope_type": "llama3", "rope_theta": 500000.0},
        dtype="float16",
        eos_token_id=[1, 2],
    )
    assert old == new
    assert old.rope_scaling == RopeScaling(
        kind="llama3",
        factor=8.0,
        original_max_position_embeddings=8192,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
    )
    assert (old.rope_theta, old.dtype, old.eos_token_ids) == (500000.0, "float16", (1, 2))


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"use_sliding_window": False, "sliding_window": 8}, (None, None)),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, (None, 8)),
        ({"use_sliding_window": True, "sliding_window": None}, (None, None)),
        (
            {
                "use_sliding_window": True,
                "sliding_window": 8,
                "layer_types": ["sliding_attention", "full_attention"],
                "max_window_layers": 2,
            },
            (8, None),
        ),
    ],
)
def test_qwen_windows_follow_the_layers(
    tmp_path: Path, changes: dict[str, Any], windows: tuple[int | None, ...]
) -> None:
    config = read(tmp_path, architectures=["Qwen2ForCausalLM"], **changes)
    assert config.layer_windows == windows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": None}, "architectures is missing"),
        ({"architectures": []}, "supported are LlamaForCausalLM"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is .* list of strings"),
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*Qwen3ForCausalLM"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"vocab_size": "128"}, "vocab_size is '128', must be an integer of at least 1"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3, must divide 4"),
        ({"head_dim": 15}, "head_dim is 15, must be even"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', must be a number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, must be true or false"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_act": 3}, "hidden_act is 3, must be a string"),
        ({"rope_theta": "big"}, "rope_theta"),
        ({"rope_theta": 0}, "rope_theta is 0, must be finite and above 1"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, must be finite and above 0"),
        ({"rope_scaling": [1]}, "rope_scaling is .* must be an object"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type is 'dynamic', supported are"),
        (
            {"rope_parameters": {"rope_type": "longrope"}},
            "rope_parameters: rope_type is 'longrope'",
        ),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor is 0.5"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "original_max_position_embedd"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"torch_dtype": "int8"}, "torch_dtype is 'int8', supported are bfloat16"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
        ({"eos_token_id": [1, -2]}, "eos_token_id"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        (
            {"architectures": ["MistralForCausalLM"], "sliding_window": -1},
            "sliding_window is -1",
        ),
        (
            {
                "architectures": ["Qwen3ForCausalLM"],
                "use_sliding_window": True,
                "layer_types": ["full_attention"],
            },
            "layer_types is .* must be 2 of",
        ),
    ],
)
def test_a_bad_config_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, **changes)


@pytest.mark.parametrize("content", ["{", "[]", "", '"x"', "\x00"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        ModelConfig.from_directory(tmp_path)


def test_a_missing_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*config\.json"):
        ModelConfig.from_directory(tmp_path)
    with pytest.raises(ConfigError, match="'.*nowhere' does not exist"):
        ModelConfig.from_directory(tmp_path / "nowhere")


def test_generation_defaults_are_optional(tmp_path: Path) -> None:
    assert read_generation_config(tmp_path) == GenerationConfig()
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": 7, "temperature": 0.6, "top_k": 20, "do_sample": True})
    )
    expected = GenerationConfig(eos_token_ids=(7,), temperature=0.6, top_k=20)
    assert read_generation_config(tmp_path) == expected


def test_a_bad_generation_default_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"top_p": "most"}')
    with pytest.raises(ConfigError, match="top_p is 'most', must be a number"):
        read_generation_config(tmp_path)


def test_a_local_directory_is_the_model(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c", ""])
def test_a_path_that_is_no_directory_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match=f"model directory '{model}' does not exist"):
        resolve_model(model)


def test_a_revision_of_a_local_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="revision 'main' given"):
        resolve_model(str(tmp_path), "main")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("someone/some-model", "someone/some-model.* hub could not be reached"),
        ("not a hub id", "not a hub id.* neither a directory nor a public model"),
    ],
)
def test_an_id_that_the_hub_cannot_resolve_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, message: str
) -> None:
    script = (
        "from rillm.errors import ConfigError\n"
        "from rillm.models.hub import resolve_model\n"
        "try:\n"
        f"    resolve_model({model!r})\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert re.search(message, result.stdout)


def test_the_frontend_reads_the_facts_without_torch() -> None:
    script = (
        "import sys, rillm.models.config, rillm.models.hub, rillm.models.registry\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_supported_architectures_are_sorted_and_readable(tmp_path: Path) -> None:
    names = supported_architectures()
    assert names == sorted(names)
    for name in names:
        assert read(tmp_path, architectures=[name]).architecture == name
