"""Renders and tokenises the training text, and draws the held-out evaluation.

Run as a program it writes ``tokens.bin`` (uint16, all conversations one after the other),
``mask.bin`` (uint8, 1 where a token is the model's to write) and ``ends.npy`` (int64, the end of
each conversation). Everything follows from the seed.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from conversations import Conversation
from jinja2.sandbox import ImmutableSandboxedEnvironment
from mixture import training_conversations
from tokenizers import Tokenizer

BUNDLED = Path(__file__).resolve().parent.parent / "src" / "rillm" / "bundled"


class Renderer:
    """Turns conversations into text with the model's own chat template."""

    def __init__(self, directory: Path = BUNDLED) -> None:
        """Compile ``chat_template.jinja`` of the model in ``directory``."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self.template = environment.from_string(
            (directory / "chat_template.jinja").read_text("utf-8")
        )

    def prompt(self, conversation: Conversation) -> str:
        """The text that the model is given."""
        return self.template.render(
            messages=conversation["messages"][:-1],
            tools=conversation["tools"],
            add_generation_prompt=True,
            enable_thinking=conversation["enable_thinking"],
        )

    def parts(self, conversation: Conversation) -> tuple[str, str]:
        """The text that the model is given, and the text it should write, end mark included."""
        prompt = self.prompt(conversation)
        bare = prompt.removesuffix("<think>\n\n</think>\n\n")
        whole = self.template.render(messages=conversation["messages"], tools=conversation["tools"])
        if not whole.startswith(bare):
            raise ValueError("the prompt is no prefix of the conversation")
        return prompt, whole[len(bare) :].removesuffix("\n")


def _tokenise(job: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generate and tokenise one share of the text: tokens, mask and lengths."""
    seed, count = job
    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    renderer = Renderer()
    parts = [renderer.parts(item) for item in training_conversations(seed, count)]
    prompts = tokenizer.encode_batch([prompt for prompt, _ in parts])
    answers = tokenizer.encode_batch([answer for _, answer in parts])
    tokens: list[int] = []
    mask: list[int] = []
    lengths = []
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens += prompt.ids + answer.ids
        mask += [0] * len(prompt.ids) + [1] * len(answer.ids)
        lengths.append(len(prompt.ids) + len(answer.ids))
    return np.array(tokens, np.uint16), np.array(mask, np.uint8), np.array(lengths, np.int64)


def main() -> None:
    """Write the training text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the files written")
    parser.add_argument("--conversations", type=int, default=120_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    share = 2000
    jobs = [(options.seed * 1_000_000 + n, share) for n in range(options.conversations // share)]
    options.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.workers) as pool:
        done = list(pool.map(_tokenise, jobs))
    tokens, mask, lengths = (np.concatenate([part[k] for part in done]) for k in range(3))
    tokens.tofile(options.out / "tokens.bin")
    mask.tofile(options.out / "mask.bin")
    np.save(options.out / "ends.npy", np.cumsum(lengths))
    print(f"{len(lengths)} conversations, {len(tokens)} tokens, {int(mask.sum())} of them to learn")


if __name__ == "__main__":
    main()
