"""Trains the bundled model on the text that ``data.py`` wrote.

The learning rate and the lengths follow the share of ``--tokens`` that was seen. A run that was
stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data import BUNDLED, Renderer
from export import export
from mixture import evaluation_conversations
from model import ModelShape, Qwen3
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

CHUNK = 2048
"""Conversations that are sorted by length together; their batches are shuffled afterwards."""

SAVE_SECONDS = 180.0

LENGTH_STEP = 32
"""Rows are padded to a multiple of this many tokens."""

STAGES = ((224, 0.25), (320, 0.65), (1024, 1.0))
"""Longest conversation in tokens, and the share of the run until which that holds.

Copying is learned much faster from short conversations; the model sees long ones afterwards.
"""


@dataclass
class Batch:
    """Rows of one length: tokens (rows, length), chosen positions (n,) and their targets (n,).

    A position is an index into the flattened rows; its target is the token after it.
    """

    tokens: Tensor
    chosen: Tensor
    targets: Tensor


class Corpus:
    """The token file, cut into batches of similar lengths."""

    def __init__(self, directory: Path, batch_tokens: int) -> None:
        """Open the files of ``data.py``; a batch has about ``batch_tokens`` tokens."""
        self.tokens = np.fromfile(directory / "tokens.bin", np.uint16)
        self.mask = np.fromfile(directory / "mask.bin", np.uint8)
        ends = np.load(directory / "ends.npy")
        self.starts, self.ends = np.concatenate([[0], ends[:-1]]), ends
        self.batch_tokens = batch_tokens

    def batches(self, seed: int, longest: int) -> Iterator[list[int]]:
        """Yield the rows of each batch, epoch after epoch, of at most ``longest`` tokens each."""
        rng = np.random.default_rng(seed)
        lengths = self.ends - self.starts
        allowed = np.flatnonzero(lengths <= longest)
        while True:
            order = rng.permutation(allowed)
            for begin in range(0, len(order), CHUNK):
                chunk = order[begin : begin + CHUNK]
                chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
                groups: list[list[int]] = [[]]
                for row in chunk.tolist():
                    padded = _padded(int(lengths[row]))
                    if groups[-1] and (len(groups[-1]) + 1) * padded > self.batch_tokens:
                        groups.append([])
                    groups[-1].append(row)
                for index in rng.permutation(len(groups)):
                    yield groups[index]

    def load(self, rows: list[int]) -> Batch:
        """Read rows and choose the positions before the tokens that the model should write."""
        length = _padded(int(max(self.ends[row] - self.starts[row] for row in rows)))
        tokens = np.zeros((len(rows), length), np.int64)
        learned = np.zeros((len(rows), length), bool)
        for index, row in enumerate(rows):
            part = slice(self.starts[row], self.ends[row])
            size = part.stop - part.start
            tokens[index, :size] = self.tokens[part]
            learned[index, : size - 1] = self.mask[part][1:]
        chosen = np.flatnonzero(learned)
        targets = np.roll(tokens, -1, axis=1).reshape(-1)[chosen]
        return Batch(*map(torch.from_numpy, (tokens, chosen, targets)))


def _padded(length: int) -> int:
    """``length`` rounded up to a multiple of ``LENGTH_STEP``."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


class HeldOut:
    """Counts held-out answers whose every token is the most likely one.

    That is what greedy decoding would write exactly. Of an answer with reasoning only the part
    after the reasoning counts, given the expected reasoning.
    """

    def __init__(self, scale: float) -> None:
        """Draw the conversations, ``scale`` times the number of the evaluation."""
        tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
        renderer = Renderer()
        end_of_thought = tokenizer.token_to_id("</think>")
        self.items = []
        for conversation in evaluation_conversations(seed=10_000, scale=scale):
            prompt, answer = (tokenizer.encode(part).ids for part in renderer.parts(conversation))
            skipped = answer.index(end_of_thought) + 1 if end_of_thought in answer else 0
            tokens = torch.tensor(prompt + answer)
            self.items.append((conversation["kind"], tokens, len(prompt) + skipped))

    @torch.inference_mode()
    def share(self, model: Qwen3) -> dict[str, float]:
        """Shares of right answers by kind, 0 to 1, and of all under ``all``."""
        device = next(model.parameters()).device
        found: dict[str, list[bool]] = defaultdict(list)
        for kind, tokens, begin in self.items:
            with torch.autocast(device.type, torch.bfloat16):
                chosen = torch.arange(begin - 1, len(tokens) - 1, device=device)
                logits = model(tokens[None].to(device), chosen)
            right = bool((logits.argmax(-1).cpu() == tokens[begin:]).all())
            found[kind].append(right)
            found["all"].append(right)
        return {kind: round(sum(rights) / len(rights), 3) for kind, rights in found.items()}


def learning_rate(progress: float, warmup: float = 0.01, flat: float = 0.35) -> float:
    """Factor on the learning rate at ``progress`` (0 to 1): rise, hold, fall linearly to zero."""
    if progress < warmup:
        return 0.05 + 0.95 * progress / warmup
    return 1.0 if progress < flat else max(0.0, (1 - progress) / (1 - flat))


def optimizers(model: Qwen3, muon: float, adam: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=muon, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW(others, lr=adam, betas=(0.9, 0.95), weight_decay=0.0),
    ]


class Training:
    """One run: the network, its optimizers, the text, and how far it has come."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Set everything up and go on from the checkpoint, if there is one."""
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = Qwen3(ModelShape()).to(self.device)
        self.optimizers = optimizers(self.model, options.muon, options.adam)
        self.base_rates = [each.param_groups[0]["lr"] for each in self.optimizers]
        self.corpus = Corpus(options.data, options.batch_tokens)
        self.held_out = HeldOut(options.quick)
        self.step, self.seen, self.seconds = 0, 0, 0.0
        self.checkpoint = options.run / "checkpoint.pt"
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint, map_location=self.device)
            self.model.load_state_dict(saved["model"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.step, self.seen = saved["step"], saved["seen"]
            self.seconds = saved["seconds"]
        for layer in self.model.model.layers:
            layer.compile(dynamic=True)

    def save(self) -> None:
        """Write the checkpoint and the model directory."""
        partial = self.checkpoint.with_suffix(".partial")
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seen": self.seen,
            "seconds": self.seconds,
        }
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)
        export(self.model.state_dict(), self.model.shape, self.options.export)

    def note(self, **values: object) -> None:
        """Add a line to ``history.jsonl``: steps, tokens and minutes so far, and ``values``."""
        minutes = round(self.seconds / 60, 2)
        record = {"step": self.step, "tokens": self.seen, "minutes": minutes, **values}
        with (self.options.run / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def learn(self, batch: Batch, factor: float) -> float:
        """Make one step with the learning rates times ``factor``; returns the mean loss in nats."""
        for optimizer, rate in zip(self.optimizers, self.base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(batch.tokens.to(self.device), batch.chosen.to(self.device))
        loss = functional.cross_entropy(logits.float(), batch.targets.to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.seen += batch.tokens.numel()
        return loss.item()

    def run(self) -> None:
        """Train until enough tokens were seen."""
        total = self.options.tokens
        bar = tqdm(total=total, initial=self.seen, unit="tok", unit_scale=True, mininterval=10)
        # The seed moves on with the step, so a run that goes on does not repeat its batches.
        seed = self.options.seed + self.step
        batches = [self.corpus.batches(seed, longest) for longest, _ in STAGES]
        losses: list[float] = []
        last = last_saved = time.monotonic()
        while self.seen < total:
            progress = self.seen / total
            stage = sum(progress >= end for _, end in STAGES[:-1])
            batch = self.corpus.load(next(batches[stage]))
            factor = learning_rate(progress)
            losses.append(self.learn(batch, factor))
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            bar.set_postfix_str(f"loss {losses[-1]:.3f} lr {factor:.2f}", refresh=False)
            bar.update(batch.tokens.numel())
            if self.step % 25 == 0:
                mean = sum(losses) / len(losses)
                self.note(loss=round(mean, 4), rate=round(factor, 4))
                losses.clear()
            if self.step % self.options.every == 0:
                self.note(held_out=self.held_out.share(self.model))
            if now - last_saved > SAVE_SECONDS:
                self.save()
                last_saved = time.monotonic()
        self.save()
        self.note(held_out=self.held_out.share(self.model))
        bar.close()


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory that data.py wrote")
    parser.add_argument(
        "--run", type=Path, required=True, help="directory of checkpoint and history"
    )
    parser.add_argument("--export", type=Path, default=BUNDLED, help="directory of the model")
    parser.add_argument("--tokens", type=int, default=20_000_000)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--muon", type=float, default=0.01, help="learning rate of the matrices")
    parser.add_argument("--adam", type=float, default=3e-3, help="learning rate of the embedding")
    parser.add_argument("--every", type=int, default=400, help="steps between quick evaluations")
    parser.add_argument("--quick", type=float, default=0.3, help="size of the quick evaluation")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.run.mkdir(parents=True, exist_ok=True)
    Training(options).run()


if __name__ == "__main__":
    main()
