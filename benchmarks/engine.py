"""Offline engine benchmark: rillm beside transformers' `generate` and beside the machine's floor.

    python benchmarks/engine.py --shape qwen3-0.6b
    python benchmarks/engine.py --shape tiny

One run measures everything, engines taking turns, so that a ratio compares like with like. The
decode floor is the weights' bytes over the memory bandwidth, the better of two measured right
before and right after the run that is compared with it; where these differ by more than a tenth the
run is made again, since neither tells what it had. The prefill floor is the products' FLOP
over the rate measured here. The last line is one JSON document.

With `--without-bf16` all is as on a processor with AVX-512 that does not multiply bfloat16: rillm
keeps bfloat16, in code without those instructions, and the others compute in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

# As the client sets it for a core process; torch reads it when it first allocates.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch
from floors import MemoryReader, product_flops
from shapes import SHAPES, make_checkpoint, num_parameters

from rillm.engine.config import EngineConfig
from rillm.engine.core import EngineCore
from rillm.engine.messages import Commands, EngineRequest, StepOutputs, TokenSamplingParams

NUM_WARM_STEPS = 4
SAME_BANDWIDTH = 0.9
MOST_TRIES = 6


class TimedCore(EngineCore):
    """An engine core that knows how long its forward passes took."""

    forward_s = 0.0

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.model.forward = self._timed(self.model.forward)
        self.model.compute_logits = self._timed(self.model.compute_logits)

    def _timed(self, function):  # type: ignore[no-untyped-def]
        def timed(*args):  # type: ignore[no-untyped-def]
            start_s = time.perf_counter()
            result = function(*args)
            self.forward_s += time.perf_counter() - start_s
            return result

        return timed


def prompts_of(count: int, length: int, vocab_size: int) -> list[list[int]]:
    """Random prompts without a common prefix."""
    rng = random.Random(count)
    return [[rng.randrange(vocab_size) for _ in range(length)] for _ in range(count)]


def run_rillm(core: TimedCore, prompts: list[list[int]], num_tokens: int) -> dict[str, float]:
    """Prefill all prompts, then time each decode step."""
    core.apply(
        Commands(
            [
                EngineRequest(
                    request_id=i,
                    prompt_token_ids=prompt,
                    params=TokenSamplingParams(seed=i, max_tokens=num_tokens, temperature=0.0),
                )
                for i, prompt in enumerate(prompts)
            ],
            reset_prefix_cache=True,
        )
    )
    start_s = time.perf_counter()
    num_first = 0
    while num_first < len(prompts):
        num_first = sum(len(d.token_ids) for d in core.step().deltas)
    prefill_s = time.perf_counter() - start_s
    steps, outside = [], []
    while core.has_work:
        forward_s = core.forward_s
        start_s = time.perf_counter()
        outputs: StepOutputs = core.step()
        step_s = time.perf_counter() - start_s
        assert len(outputs.deltas) == len(prompts)
        steps.append(step_s)
        outside.append(step_s - (core.forward_s - forward_s))
    core.scheduler.check()
    return {
        "prefill_s": prefill_s,
        "step_s": statistics.median(steps[NUM_WARM_STEPS:]),
        "outside_s": statistics.median(outside[NUM_WARM_STEPS:]),
    }


def steady_run(
    core: TimedCore, prompts: list[list[int]], num_tokens: int, memory: MemoryReader
) -> dict[str, float]:
    """A run with the bandwidth around it, again if that has changed meanwhile."""
    for _ in range(MOST_TRIES):
        before = memory.bandwidth()
        run = run_rillm(core, prompts, num_tokens)
        after = memory.bandwidth()
        run["bandwidth"] = max(before, after)
        if min(before, after) > SAME_BANDWIDTH * run["bandwidth"]:
            break
    return run


def run_transformers(model, prompts: list[list[int]], num_tokens: int) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """The same prompts through `generate`, timed at each forward pass."""
    stamps: list[float] = []
    hook = model.register_forward_hook(lambda *_: stamps.append(time.perf_counter()))
    ids = torch.tensor(prompts)
    start_s = time.perf_counter()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num_tokens,
        min_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    hook.remove()
    steps = [b - a for a, b in zip(stamps, stamps[1:], strict=False)]
    return {
        "prefill_s": stamps[0] - start_s,
        "step_s": statistics.median(steps[NUM_WARM_STEPS:]),
    }


def best_of(runs: list[dict[str, float]]) -> dict[str, float]:
    """The quickest of several runs, figure by figure."""
    return {name: min(run[name] for run in runs) for name in runs[0]}


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Run every case and print its row."""
    shape = options.shape
    path = make_checkpoint(shape, options.models / shape)
    weight_bytes = 2 * num_parameters(shape, with_embedding=True)
    dtype = torch.float32 if options.without_bf16 else torch.bfloat16
    memory, flops = MemoryReader(), product_flops(dtype)
    print(f"{shape}: {weight_bytes / 1e6:.0f} MB of weights, {torch.get_num_threads()} threads")
    print(f"{str(dtype).removeprefix('torch.')} products {flops / 1e12:.2f} TFLOP/s")
    core = TimedCore(
        EngineConfig(model_path=str(path), dtype="bfloat16", max_num_batched_tokens=4096)
    )
    peer = None
    if not options.no_transformers:
        from transformers import AutoModelForCausalLM

        peer = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    vocab_size = SHAPES[shape]["vocab_size"]
    print(
        f"\n{'decode':>10} {'rillm tok/s':>12} {'HF tok/s':>9} {'ratio':>6} {'memory GB/s':>12} "
        f"{'floor tok/s':>12} {'x floor':>8} {'outside us/tok':>15}"
    )
    rows: list[dict[str, object]] = []
    for batch in options.batches:
        prompts = prompts_of(batch, options.prompt, vocab_size)
        ours, theirs = [], []
        for _ in range(options.repeats):
            ours.append(steady_run(core, prompts, options.tokens, memory))
            if peer is not None:
                theirs.append(run_transformers(peer, prompts, options.tokens))
        best = min(ours, key=lambda run: run["step_s"])
        floor_step_s = weight_bytes / best["bandwidth"]
        row: dict[str, object] = {
            "batch": batch,
            "tok_s": batch / best["step_s"],
            "read_gb_s": best["bandwidth"] / 1e9,
            "floor_tok_s": batch / floor_step_s,
            "times_floor": best["step_s"] / floor_step_s,
            "outside_us_per_step": best["outside_s"] * 1e6,
            "outside_us_per_token": best["outside_s"] / batch * 1e6,
        }
        hf = "-", "-"
        if theirs:
            row["transformers_tok_s"] = batch / best_of(theirs)["step_s"]
            row["ratio"] = best_of(theirs)["step_s"] / best["step_s"]
            hf = f"{row['transformers_tok_s']:.1f}", f"{row['ratio']:.2f}"
        rows.append(row)
        print(
            f"{'batch ' + str(batch):>10} {row['tok_s']:>12.1f} {hf[0]:>9} {hf[1]:>6} "
            f"{row['read_gb_s']:>12.1f} {row['floor_tok_s']:>12.1f} {row['times_floor']:>8.2f} "
            f"{row['outside_us_per_token']:>15.1f}"
        )
    return {
        "shape": shape,
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "products_tflop_s": flops / 1e12,
        "prompt": options.prompt,
        "tokens": options.tokens,
        "decode": rows,
        "prefill": measure_prefill(core, peer, shape, flops, options.repeats),
    }


def measure_prefill(core: TimedCore, peer, shape: str, flops: float, repeats: int):  # type: ignore[no-untyped-def]
    """Time the prefill of one prompt of 512 tokens."""
    length = 512
    prompts = prompts_of(1, length, SHAPES[shape]["vocab_size"])
    floor_s = 2 * num_parameters(shape, with_embedding=False) * length / flops
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(run_rillm(core, prompts, NUM_WARM_STEPS + 2)["prefill_s"])
        if peer is not None:
            theirs.append(run_transformers(peer, prompts, NUM_WARM_STEPS + 3)["prefill_s"])
    result = {"tokens": length, "s": min(ours), "floor_s": floor_s}
    result["times_floor"] = result["s"] / floor_s
    line = f"prefill {length}: {min(ours) * 1e3:.1f} ms, floor {floor_s * 1e3:.1f} ms"
    line += f" ({result['times_floor']:.2f} x)"
    if theirs:
        result["transformers_s"] = min(theirs)
        line += f", transformers {min(theirs) * 1e3:.1f} ms"
    print("\n" + line)
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen3-0.6b")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16, 32])
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=48, help="tokens generated for each")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--without-bf16", action="store_true", help="do without AVX512-BF16")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "rillm-bench")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    if options.without_bf16:
        capabilities = torch.cpu.get_capabilities() | {"avx512_bf16": False}
        torch.cpu.get_capabilities = lambda: capabilities
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
