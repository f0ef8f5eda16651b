"""Writes the mean of several models' weights: ``python average.py OUT MODEL MODEL ...``.

The mean of checkpoints of one run is often better than each of them (Izmailov et al. 2018,
"Averaging Weights Leads to Wider Optima and Better Generalization").
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def average(models: list[Path], out: Path) -> None:
    """Write the mean of the weights of ``models`` into the directory ``out``, in bfloat16."""
    states = [load_file(model / WEIGHTS) for model in models]
    with safe_open(models[0] / WEIGHTS, "pt") as file:  # type: ignore[no-untyped-call]
        metadata = file.metadata()
    mean = {
        name: (sum(state[name].float() for state in states) / len(states)).bfloat16()
        for name in states[0]
    }
    save_file(mean, out / WEIGHTS, metadata=metadata)


if __name__ == "__main__":
    average([Path(each) for each in sys.argv[2:]], Path(sys.argv[1]))
