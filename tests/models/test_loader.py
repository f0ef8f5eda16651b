from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import make_checkpoint

from rillm.errors import ConfigError
from rillm.models.config import ModelConfig
from rillm.models.loader import default_dtype, load_model
from rillm.models.native.decoder import native_library

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def load(path: Path) -> None:
    load_model(path, ModelConfig.from_directory(path), dtype=torch.float32, device=CPU)


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / WEIGHTS)
    change(tensors)
    save_file(tensors, path / WEIGHTS)


def test_a_directory_without_safetensors_is_refused(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=f"has neither {WEIGHTS} nor {INDEX}"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 1000, -8])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    make_checkpoint("llama", tmp_path)
    file = tmp_path / WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=f"cannot read .*{WEIGHTS}"):
        load(tmp_path)


def test_a_missing_shard_is_refused_by_name(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path, max_shard_size="50KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ConfigError, match=f"cannot read .*{shard.name}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "weight_map is missing or empty"),
        ({"weight_map": {"a": 1}}, "a is 1, must be a string"),
        ({"weight_map": {"a": "../other/model.safetensors"}}, "must be the name of a file"),
    ],
)
def test_a_bad_index_is_refused(tmp_path: Path, index: dict[str, object], message: str) -> None:
    make_checkpoint("llama", tmp_path)
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("llama", "lm_head.weight"),
        ("llama", "model.embed_tokens.weight"),
        ("llama", "model.norm.weight"),
        ("qwen2", "model.layers.1.self_attn.k_proj.bias"),
        ("qwen3", "model.layers.2.self_attn.q_norm.weight"),
    ],
)
def test_a_missing_tensor_is_refused_by_name(tmp_path: Path, family: str, name: str) -> None:
    make_checkpoint(family, tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(ConfigError, match=f"has no tensor '{name}'"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "lm_head.weight"])
def test_a_tensor_of_another_shape_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make_checkpoint("llama", tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({name: torch.zeros(7, 64)}))
    with pytest.raises(ConfigError, match=rf"'{name}' has shape \[7, 64\], config\.json asks"):
        load(tmp_path)


def test_a_tensor_of_integers_is_refused(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    integers = torch.zeros(64, dtype=torch.int8)
    rewrite(tmp_path, lambda tensors: tensors.update({"model.norm.weight": integers}))
    with pytest.raises(ConfigError, match=r"'model\.norm\.weight' has dtype torch\.int8"):
        load(tmp_path)


def test_a_tensor_that_nothing_uses_is_refused(tmp_path: Path) -> None:
    make_checkpoint("llama", tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(2)}))
    with pytest.raises(ConfigError, match=r"1 tensors .* does not use: model\.extra\.weight"):
        load(tmp_path)


def test_known_redundant_tensors_are_ignored(tmp_path: Path) -> None:
    make_checkpoint("qwen3", tmp_path)
    redundant = {
        "lm_head.weight": torch.zeros(384, 64),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(16),
    }
    rewrite(tmp_path, lambda tensors: tensors.update(redundant))
    load(tmp_path)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig.from_directory(make_checkpoint("llama", tmp_path_factory.mktemp("llama")))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_gpu_computes_in_the_dtype_of_the_checkpoint(config: ModelConfig, dtype: str) -> None:
    config = dataclasses.replace(config, dtype=dtype)
    assert default_dtype(config, torch.device("cuda")) == getattr(torch, dtype)


def test_the_cpu_never_computes_in_float16(config: ModelConfig) -> None:
    for dtype in ("bfloat16", "float16"):
        chosen = default_dtype(dataclasses.replace(config, dtype=dtype), CPU)
        assert chosen in (torch.bfloat16, torch.float32)
    assert default_dtype(config, CPU) == torch.float32


BFLOAT16 = ("avx512_bf16", "amx_bf16", "sve_bf16")
"""Instructions that multiply it."""


def test_bfloat16_is_for_who_multiplies_it_or_has_the_compiled_decoder(
    config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, dtype="bfloat16")
    is_compiled = native_library(config, torch.bfloat16, CPU) is not None
    for multiplies in (False, True):
        can = torch.cpu.get_capabilities() | dict.fromkeys(BFLOAT16, multiplies)
        with monkeypatch.context() as patch:
            patch.setattr(torch.cpu, "get_capabilities", lambda can=can: can)
            chosen = default_dtype(config, CPU)
            eager = default_dtype(config, CPU, enforce_eager=True)
        assert (chosen == torch.bfloat16) == (multiplies or is_compiled)
        assert (eager == torch.bfloat16) == multiplies
