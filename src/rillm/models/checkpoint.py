"""Checkpoint: the tensors of a directory of safetensors files, by name.

Knows files, names, shapes and dtypes; nothing of what a tensor is for.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rillm.errors import ConfigError
from rillm.models.json_fields import JsonFields

_SINGLE_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_MAX_NAMES_SHOWN = 5


class Checkpoint:
    """Tensors of one checkpoint, read on demand and converted on the way.

    A context manager: the files are mapped into memory until it ends. Tensors taken from it are
    copies and stay valid, even if the files change.
    """

    def __init__(self, path: Path, *, dtype: torch.dtype, device: torch.device) -> None:
        """Open the safetensors files in the directory `path`.

        Raises:
            ConfigError: there are none, or one is missing, truncated or corrupt.
        """
        self.dtype = dtype
        self.device = device
        self._path = path
        self._taken: set[str] = set()
        self._files = {}
        with ExitStack() as stack:
            for file in _shards(path):
                try:
                    handle = stack.enter_context(safe_open(file, framework="pt"))
                except (SafetensorError, OSError) as error:
                    raise ConfigError(f"cannot read {file}: {error}") from error
                self._files.update(dict.fromkeys(handle.keys(), handle))
            self._stack = stack.pop_all()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def take(self, name: str, *shape: int) -> Tensor:
        """Read one tensor.

        Args:
            name: its name in the checkpoint.
            shape: the shape it must have.

        Returns:
            A copy in the dtype and on the device of this checkpoint.

        Raises:
            ConfigError: no such tensor, another shape, or not of a floating-point dtype.
        """
        if name not in self._files:
            raise ConfigError(f"{self._path} has no tensor {name!r}")
        self._taken.add(name)
        try:
            tensor: Tensor = self._files[name].get_tensor(name)
        except SafetensorError as error:
            raise ConfigError(f"cannot read tensor {name!r} of {self._path}: {error}") from error
        if tensor.shape != shape:
            raise ConfigError(
                f"{self._path}: tensor {name!r} has shape {list(tensor.shape)}, "
                f"config.json asks for {list(shape)}"
            )
        if tensor.dtype not in (torch.bfloat16, torch.float16, torch.float32):
            raise ConfigError(f"{self._path}: tensor {name!r} has dtype {tensor.dtype}")
        return tensor.to(device=self.device, dtype=self.dtype, copy=True)

    def check_all_taken(self, *, but: tuple[str, ...]) -> None:
        """Make sure that no weight was overlooked.

        Args:
            but: endings of names that need not have been taken.

        Raises:
            ConfigError: tensors were not taken; names some of them.
        """
        left = sorted(n for n in self._files if n not in self._taken and not n.endswith(but))
        if left:
            shown = ", ".join(left[:_MAX_NAMES_SHOWN])
            raise ConfigError(
                f"{self._path} has {len(left)} tensors that its architecture does not use: {shown}"
            )


def _shards(path: Path) -> list[Path]:
    index = path / _INDEX_FILE
    if not index.exists():
        if not (path / _SINGLE_FILE).exists():
            raise ConfigError(f"{path} has neither {_SINGLE_FILE} nor {_INDEX_FILE}")
        return [path / _SINGLE_FILE]
    names = JsonFields.from_file(index).nested("weight_map")
    files = sorted({names.text(name) for name in names})
    if not files:
        raise ConfigError(f"{index}: weight_map is missing or empty")
    for name in files:
        if Path(name).name != name:
            raise ConfigError(f"{index}: {name!r} must be the name of a file beside it")
    return [path / name for name in files]
