"""NativeDecoder: weights in the layout of the C code, and steps as that code reads them."""

from __future__ import annotations

import ctypes
import sys
from array import array
from ctypes import c_void_p

import torch
import torch.nn.functional as F
from torch import Tensor

from rillm.models.batch import ForwardBatch
from rillm.models.config import ModelConfig
from rillm.models.kv_cache import KVCache
from rillm.models.native.library import (
    MAX_GROUP,
    MAX_HEAD,
    PANEL,
    Batch,
    Decoder,
    Layer,
    Library,
    Matrix,
    load_library,
)
from rillm.models.norm import RMSNorm
from rillm.models.rotary import RotaryEmbedding
from rillm.models.weights import LayerWeights, Projection

INSTRUCTIONS = ("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")
"""What the C code cannot do without, by the names of `torch.cpu.get_capabilities`."""


class NativeDecoder:
    """Layers in bfloat16 with sums in float32, all of a step in one call.

    A token's result depends on its sequence alone, to the last bit: not on what else is in the
    batch, nor on how its prompt was cut into steps.
    """

    def __init__(
        self,
        library: Library,
        config: ModelConfig,
        embedding: Tensor,
        norm: Tensor,
        head: Tensor,
    ) -> None:
        """Begin without layers: `add_layer` follows, once for each.

        Args:
            library: the compiled code.
            config: facts of the model, for which `native_library` gave it.
            embedding: [V, hidden] bfloat16.
            norm: [hidden], of the final norm.
            head: [V, hidden] bfloat16; may be the embedding.
        """
        self._library = library
        self._config = config
        self._held: list[Tensor] = []
        self._layers = (Layer * config.num_layers)()
        self._num_layers = 0
        self._norm = RMSNorm(norm, config.rms_norm_eps)
        self._rotary = RotaryEmbedding(config, embedding.device, torch.float32)
        self._cache: KVCache | None = None
        self._workspace = torch.empty(0, dtype=torch.uint8)
        self._workspace_bytes = 0
        packed_head = self._matrix(Projection(head, None))
        packed_embedding = (
            packed_head if head is embedding else self._matrix(Projection(embedding, None))
        )
        self._decoder = Decoder(
            num_layers=config.num_layers,
            hidden=config.hidden_size,
            heads=config.num_heads,
            kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            mlp=_whole_panels(config.intermediate_size),
            eps=config.rms_norm_eps,
            norm=self._floats(norm),
            head=packed_head,
            embedding=packed_embedding,
            layers=self._layers,
        )

    def add_layer(self, weights: LayerWeights) -> None:
        """Take the weights of the next layer."""
        index = self._num_layers
        self._num_layers += 1
        missing = _whole_panels(self._config.intermediate_size) - self._config.intermediate_size
        down = weights.down_proj
        self._layers[index] = Layer(
            attention_norm=self._floats(weights.attention_norm),
            mlp_norm=self._floats(weights.mlp_norm),
            qk_norm=None if weights.qk_norm is None else self._floats(weights.qk_norm),
            qkv=self._matrix(weights.qkv_proj),
            output=self._matrix(weights.o_proj),
            gate_up=self._matrix(_in_turns(weights.gate_proj, weights.up_proj)),
            down=self._matrix(Projection(F.pad(down.weight, (0, missing)), down.bias)),
            window=self._config.layer_windows[index] or 0,
        )

    def forward(self, batch: ForwardBatch, kv_cache: KVCache) -> Tensor:
        """See `Model.forward`; the result is float32."""
        if kv_cache is not self._cache:
            self._cache = kv_cache
            self._keys, self._values = _addresses(kv_cache.keys), _addresses(kv_cache.values)
        cos, sin = self._rotary.tables(max(batch.seq_lens))
        lengths = array("q", batch.query_lens + batch.seq_lens)
        query_lens, _ = lengths.buffer_info()
        arguments = Batch(
            tokens=len(batch.token_ids),
            sequences=len(batch.seq_lens),
            block_size=kv_cache.block_size,
            table_width=batch.block_tables.stride(0),
            token_ids=batch.token_ids.data_ptr(),
            slots=batch.slot_mapping.data_ptr(),
            block_tables=batch.block_tables.data_ptr(),
            query_lens=query_lens,
            seq_lens=query_lens + len(batch.query_lens) * lengths.itemsize,
            positions=batch.positions.data_ptr(),
            cos=cos.data_ptr(),
            sin=sin.data_ptr(),
            keys=ctypes.addressof(self._keys),
            values=ctypes.addressof(self._values),
        )
        hidden = torch.empty((arguments.tokens, self._config.hidden_size), dtype=torch.float32)
        self._library.forward(
            self._decoder,
            arguments,
            self._library.threads(),
            self._reserve(
                self._library.workspace_bytes(self._decoder, arguments.tokens, arguments.sequences)
            ),
            hidden.data_ptr(),
        )
        return hidden

    def normalize(self, hidden: Tensor) -> Tensor:
        """See `Model.normalize`."""
        return self._norm(hidden)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """See `Model.compute_logits`."""
        if hidden.dtype != torch.float32 or not hidden.is_contiguous():
            hidden = hidden.to(torch.float32).contiguous()
        num_rows = len(hidden)
        logits = torch.empty((num_rows, self._config.vocab_size), dtype=torch.float32)
        self._library.logits(
            self._decoder,
            hidden.data_ptr(),
            num_rows,
            self._library.threads(),
            self._reserve(num_rows * self._config.hidden_size * torch.bfloat16.itemsize),
            logits.data_ptr(),
        )
        return logits

    def _reserve(self, num_bytes: int) -> int:
        """The address of so many bytes that the next call may use for itself."""
        if num_bytes > self._workspace_bytes:
            self._workspace = torch.empty(num_bytes, dtype=torch.uint8)
            self._workspace_bytes = num_bytes
        return self._workspace.data_ptr()

    def _floats(self, values: Tensor) -> int:
        """The address of values as float32."""
        return self._address(values.to(torch.float32, copy=True).contiguous())

    def _matrix(self, projection: Projection) -> Matrix:
        """Pack a product's weight [out, in]: the last panel is filled up with zeros.

        Panels are [in / 2, 64, 2]: two inputs of 64 outputs side by side, as one instruction
        multiplies them.
        """
        num_outputs, num_inputs = projection.weight.shape
        missing = _whole_panels(num_outputs) - num_outputs
        weight = projection.weight
        rows = F.pad(weight, (0, 0, 0, missing)) if missing else weight.contiguous()
        # A pair of inputs moves as one number of 32 bits.
        pairs = rows.view(torch.int32).view(-1, PANEL, num_inputs // 2)
        bias = projection.bias
        return Matrix(
            panels=self._address(pairs.transpose(1, 2).contiguous()),
            bias=None if bias is None else self._floats(F.pad(bias, (0, missing))),
            outputs=num_outputs,
            inputs=num_inputs,
        )

    def _address(self, tensor: Tensor) -> int:
        self._held.append(tensor)
        return tensor.data_ptr()


def native_library(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Library | None:
    """The compiled code, where it can run such a model here."""
    fits = config.head_dim <= MAX_HEAD and config.num_heads <= MAX_GROUP * config.num_kv_heads
    is_even = config.hidden_size % 2 == 0
    is_linux_cpu = device.type == "cpu" and sys.platform == "linux"
    if not (is_linux_cpu and dtype == torch.bfloat16 and fits and is_even):
        return None
    capabilities = torch.cpu.get_capabilities()
    if not all(capabilities.get(name, False) for name in INSTRUCTIONS):
        return None
    return load_library(has_bf16=capabilities.get("avx512_bf16", False))


def _whole_panels(num_outputs: int) -> int:
    return -(-num_outputs // PANEL) * PANEL


def _in_turns(gate: Projection, up: Projection) -> Projection:
    """A panel of gates, one of inputs, and so on: a thread then has what belongs together."""
    missing = _whole_panels(len(gate.weight)) - len(gate.weight)

    def mixed(tensors: tuple[Tensor, Tensor], padding: tuple[int, ...]) -> Tensor:
        panels = [torch.split(F.pad(each, padding), PANEL) for each in tensors]
        return torch.cat([panel for pair in zip(*panels, strict=True) for panel in pair])

    weight = mixed((gate.weight, up.weight), (0, 0, 0, missing))
    if gate.bias is None or up.bias is None:
        return Projection(weight, None)
    return Projection(weight, mixed((gate.bias, up.bias), (0, missing)))


def _addresses(tensors: list[Tensor]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])
