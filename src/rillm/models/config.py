"""ModelConfig and GenerationConfig: the facts of a checkpoint directory, parsed once.

The only reader of `config.json` and `generation_config.json`. Understands what transformers 5
writes (`rope_parameters`, `dtype`) and what older checkpoints hold (`rope_theta` beside
`rope_scaling`, `torch_dtype`). A value it does not know is an error, never a default.
Imports no torch: the frontend reads the same facts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rillm.errors import ConfigError
from rillm.models.json_fields import JsonFields
from rillm.models.registry import ARCHITECTURES, Architecture, WindowRule, supported_architectures

DTYPES = ("bfloat16", "float16", "float32")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
_LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How the rotary frequencies were stretched beyond the trained context."""

    kind: str
    """`linear`, `llama3` or `yarn`."""
    factor: float
    """Context length over trained context length."""
    original_max_position_embeddings: int
    """Trained context length in tokens."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above trained context / this are stretched in full."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below trained context / this are left alone."""
    beta_fast: float = 32.0
    """yarn: frequencies with more turns in the trained context are left alone."""
    beta_slow: float = 1.0
    """yarn: frequencies with fewer turns in the trained context are stretched in full."""
    attention_factor: float | None = None
    """yarn: multiplies cos and sin; None means computed from the three factors."""
    mscale: float | None = None
    """yarn: numerator's share of the attention factor."""
    mscale_all_dim: float | None = None
    """yarn: denominator's share of the attention factor."""
    truncate: bool = True
    """yarn: whether the bounds of the ramp are rounded to whole dimensions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Facts of one checkpoint, as its `config.json` states them."""

    architecture: str
    """First name of `architectures`."""
    vocab_size: int
    """Rows of the embedding table."""
    hidden_size: int
    num_layers: int
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """KV heads; divides `num_heads`."""
    head_dim: int
    intermediate_size: int
    """Width of the MLP."""
    max_position_embeddings: int
    """Longest context in tokens, prompt and output together."""
    rms_norm_eps: float
    rope_theta: float
    """Base of the rotary frequencies."""
    rope_scaling: RopeScaling | None
    tie_word_embeddings: bool
    """Whether the output projection is the embedding table."""
    attention_bias: bool
    """Whether q, k and v have a bias."""
    o_bias: bool
    """Whether the attention's output projection has a bias."""
    mlp_bias: bool
    """Whether the three projections of the MLP have a bias."""
    qk_norm: bool
    """Whether each head of q and k is normalised."""
    layer_windows: tuple[int | None, ...]
    """For each layer the last positions a token sees, itself included; None means all."""
    dtype: str
    """The checkpoint's: `bfloat16`, `float16` or `float32`."""
    eos_token_ids: tuple[int, ...]
    """Tokens that end a text; empty if config.json names none."""
    bos_token_id: int | None

    @classmethod
    def from_directory(cls, path: Path) -> ModelConfig:
        """Read `config.json` of a checkpoint directory.

        Args:
            path: directory with config.json.

        Raises:
            ConfigError: the directory or the file is missing or unreadable, the architecture,
                rope type, activation, dtype or a quantisation is not supported, or a field has
                a value out of its range. The message names the key.
        """
        if not path.is_dir():
            raise ConfigError(f"model directory {str(path)!r} does not exist")
        fields = JsonFields.from_file(path / "config.json")
        name, architecture = _architecture(fields)
        _refuse_unsupported(fields)
        hidden_size = fields.integer("hidden_size")
        num_layers = fields.integer("num_hidden_layers")
        num_heads = fields.integer("num_attention_heads")
        num_kv_heads = fields.integer("num_key_value_heads", num_heads)
        if num_heads % num_kv_heads:
            raise fields.error("num_key_value_heads", f"must divide {num_heads} attention heads")
        max_positions = fields.integer("max_position_embeddings")
        rope_theta, rope_scaling = _rope(fields, max_positions)
        attention_bias, o_bias = _attention_biases(fields, architecture)
        bos_token_ids = fields.token_ids("bos_token_id")
        return cls(
            architecture=name,
            vocab_size=fields.integer("vocab_size"),
            hidden_size=hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=_head_dim(fields, architecture, hidden_size, num_heads),
            intermediate_size=fields.integer("intermediate_size"),
            max_position_embeddings=max_positions,
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6, above=0),
            rope_theta=rope_theta,
            rope_scaling=rope_scaling,
            tie_word_embeddings=fields.boolean("tie_word_embeddings", False),
            attention_bias=attention_bias,
            o_bias=o_bias,
            mlp_bias=fields.boolean("mlp_bias", False),
            qk_norm=architecture.qk_norm,
            layer_windows=_layer_windows(fields, architecture, num_layers),
            dtype=_dtype(fields),
            eos_token_ids=fields.token_ids("eos_token_id"),
            bos_token_id=bos_token_ids[0] if bos_token_ids else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """Sampling defaults that a checkpoint recommends; None means not given."""

    eos_token_ids: tuple[int, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None

    def sampling_defaults(self) -> dict[str, Any]:
        """The recommended sampling options by their names in `SamplingParams`."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.max_new_tokens is not None:
            given["max_tokens"] = self.max_new_tokens
        return given


def read_generation_config(path: Path) -> GenerationConfig:
    """Read `generation_config.json` of a checkpoint directory.

    Args:
        path: the checkpoint directory.

    Returns:
        What the file gives; all fields empty if there is no such file.

    Raises:
        ConfigError: the file is not a JSON object, or a field has the wrong type.
    """
    file = path / "generation_config.json"
    if not file.exists():
        return GenerationConfig()
    fields = JsonFields.from_file(file)
    return GenerationConfig(
        eos_token_ids=fields.token_ids("eos_token_id"),
        temperature=fields.optional_number("temperature"),
        top_p=fields.optional_number("top_p"),
        top_k=fields.optional_integer("top_k", minimum=-1),
        min_p=fields.optional_number("min_p"),
        repetition_penalty=fields.optional_number("repetition_penalty"),
        max_new_tokens=fields.optional_integer("max_new_tokens", minimum=1),
    )


def _architecture(fields: JsonFields) -> tuple[str, Architecture]:
    names = fields.texts("architectures")
    if not names or names[0] not in ARCHITECTURES:
        known = ", ".join(supported_architectures())
        raise fields.error("architectures", f"supported are {known}")
    return names[0], ARCHITECTURES[names[0]]


def _refuse_unsupported(fields: JsonFields) -> None:
    if fields.text("hidden_act", "silu") != "silu":
        raise fields.error("hidden_act", "supported is 'silu'")
    if "quantization_config" in fields:
        raise fields.error("quantization_config", "quantised checkpoints are not supported")


def _head_dim(
    fields: JsonFields, architecture: Architecture, hidden_size: int, num_heads: int
) -> int:
    default = architecture.default_head_dim or hidden_size // num_heads
    head_dim = fields.integer("head_dim", default, minimum=2)
    if head_dim % 2:
        raise fields.error("head_dim", "must be even for the rotary embedding")
    return head_dim


def _attention_biases(fields: JsonFields, architecture: Architecture) -> tuple[bool, bool]:
    if architecture.qkv_bias is not None:
        return architecture.qkv_bias, False
    bias = fields.boolean("attention_bias", False)
    return bias, bias


def _rope(fields: JsonFields, max_positions: int) -> tuple[float, RopeScaling | None]:
    rope = fields.nested("rope_parameters" if "rope_parameters" in fields else "rope_scaling")
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0, above=1), above=1)
    type_key = "rope_type" if "rope_type" in rope else "type"
    kind = rope.text(type_key, "default")
    if kind not in ROPE_TYPES:
        raise rope.error(type_key, f"supported are {', '.join(ROPE_TYPES)}")
    for source in (fields, rope):
        if source.number("partial_rotary_factor", 1.0) != 1.0:
            raise source.error("partial_rotary_factor", "supported is 1")
    if kind == "default":
        return theta, None
    return theta, _rope_scaling(rope, kind, max_positions)


def _rope_scaling(rope: JsonFields, kind: str, max_positions: int) -> RopeScaling:
    trained = None if kind == "llama3" else max_positions
    plain = RopeScaling(
        kind=kind,
        factor=rope.number("factor"),
        original_max_position_embeddings=rope.integer("original_max_position_embeddings", trained),
    )
    if plain.factor < 1:
        raise rope.error("factor", "must be at least 1")
    if kind == "llama3":
        low = rope.number("low_freq_factor", above=0)
        high = rope.number("high_freq_factor", above=low)
        return replace(plain, low_freq_factor=low, high_freq_factor=high)
    if kind == "yarn":
        return replace(
            plain,
            beta_fast=rope.number("beta_fast", 32.0, above=0),
            beta_slow=rope.number("beta_slow", 1.0, above=0),
            attention_factor=rope.optional_number("attention_factor"),
            mscale=rope.optional_number("mscale"),
            mscale_all_dim=rope.optional_number("mscale_all_dim"),
            truncate=rope.boolean("truncate", True),
        )
    return plain


def _layer_windows(
    fields: JsonFields, architecture: Architecture, num_layers: int
) -> tuple[int | None, ...]:
    everywhere = (None,) * num_layers
    rule = architecture.window_rule
    if rule is WindowRule.NEVER or fields.is_null("sliding_window"):
        return everywhere
    window = fields.integer("sliding_window", architecture.default_window)
    if rule is WindowRule.EVERY_LAYER:
        return (window,) * num_layers
    if not fields.boolean("use_sliding_window", False):
        return everywhere
    if "layer_types" not in fields:
        first = fields.integer("max_window_layers", minimum=0)
        return tuple(window if layer >= first else None for layer in range(num_layers))
    layer_types = fields.texts("layer_types")
    if len(layer_types) != num_layers or not set(layer_types) <= set(_LAYER_TYPES):
        raise fields.error("layer_types", f"must be {num_layers} of {', '.join(_LAYER_TYPES)}")
    return tuple(window if kind == "sliding_attention" else None for kind in layer_types)


def _dtype(fields: JsonFields) -> str:
    key = "dtype" if "dtype" in fields else "torch_dtype"
    dtype = fields.text(key, "float32")
    if dtype not in DTYPES:
        raise fields.error(key, f"supported are {', '.join(DTYPES)}")
    return dtype
