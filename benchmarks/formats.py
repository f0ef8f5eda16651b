"""What the machine costs for each token, and that it does not grow with the answer.

    python benchmarks/formats.py [--tokens 1000,10000,100000] [--repeats 5] [--vllm PYTHON]

Answers are cut into tokens of the bundled tokenizer, which come one at a time: plain text in a
request that offers tools, JSON arguments, and one long string in tags. `--vllm` names a Python
interpreter that has vLLM: its parsers then get the same pieces. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

import rillm
from rillm.formats.machine import Machine
from rillm.formats.registry import combine

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "write_file",
            "description": "Write a file.",
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
            },
        },
    }
]
PROSE = (
    "The tide turns twice a day, and the harbour follows it: boats that lay dry in the morning "
    "are afloat by noon. High water comes about fifty minutes later each day, which is why the "
    "tables are printed a year ahead.\n\nAsk for a port, and I will look it up. "
)
CODE = (
    "def height(hours, mean=4.2):\n"
    "    # Twelve hours and 25 minutes from one high water to the next.\n"
    "    phase = 2 * math.pi * hours / 12.42\n"
    '    return f"{mean + 2.1 * cos(phase):.1f} m"\n\n'
)
CASES = {
    "text": ("hermes", "qwen3"),
    "JSON arguments": ("hermes", "qwen3"),
    "string in tags": ("qwen3_coder", "qwen3"),
}
"""Cases to the names of tool and reasoning half."""
GOALS_US = {"text": 3.0, "JSON arguments": 10.0, "string in tags": 10.0}
VLLM_LIMIT = 10_000
"""Longer answers take its parsers minutes."""


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(Path(rillm.__file__).parent / "bundled" / "tokenizer.json"))


def tokens_of(text: str) -> list[str]:
    """The text, cut into tokens."""
    offsets = _tokenizer().encode(text, add_special_tokens=False).offsets
    ends = sorted({end for _, end in offsets} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def answer(case: str, num_tokens: int) -> list[str]:
    """An answer of about so many tokens."""
    body = CODE if case != "text" else PROSE
    size = len(tokens_of(body))
    text = body * -(-num_tokens // size)
    match case:
        case "text":
            return tokens_of(text)[:num_tokens]
        case "JSON arguments":
            quoted = json.dumps({"path": "tide.py", "text": text})
            call = f'{{"name": "write_file", "arguments": {quoted}}}'
            return tokens_of(f"<tool_call>\n{call}\n</tool_call>")
    tags = f"<parameter=path>\ntide.py\n</parameter>\n<parameter=text>\n{text}\n</parameter>"
    return tokens_of(f"<tool_call>\n<function=write_file>\n{tags}\n</function>\n</tool_call>")


def best_us(action: Callable[[], None], repeats: int) -> float:
    """The shortest processor time of several, in microseconds."""
    times = []
    gc.disable()
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
        gc.collect()
    gc.enable()
    return min(times) * 1e6


def measure(case: str, num_tokens: int, repeats: int) -> float:
    """Microseconds a token."""
    format = combine(*CASES[case])
    pieces = answer(case, num_tokens)

    def run() -> None:
        machine = Machine(format, TOOLS, start="content")
        for piece in pieces:
            machine.feed(piece)
        machine.finish()
        assert machine.faults == 0

    return best_us(run, repeats) / len(pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="1000,10000,100000")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vllm", metavar="PYTHON", help="an interpreter that has vLLM")
    options = parser.parse_args()
    lengths = [int(each) for each in options.tokens.split(",")]
    results = {
        case: {length: measure(case, length, options.repeats) for length in lengths}
        for case in CASES
    }
    theirs = vllm_results(options.vllm, lengths, options.repeats) if options.vllm else {}
    print("| us/token | " + " | ".join(f"{each:,} tokens" for each in lengths) + " | goal |")
    print("|---|" + "--:|" * (len(lengths) + 1))
    for case, times in results.items():
        cells = [f"{each:.2f}" for each in times.values()]
        print(f"| {case} | {' | '.join(cells)} | {GOALS_US[case]:.0f} |")
        if case in theirs:
            cells = [
                f"{theirs[case][each]:.2f}" if each in theirs[case] else "" for each in lengths
            ]
            print(f"| {case}, vLLM | {' | '.join(cells)} | |")
    print(json.dumps({"us_per_token": results, "vllm_us_per_token": theirs}))


def vllm_results(python: str, lengths: list[int], repeats: int) -> dict[str, dict[int, float]]:
    """The same with vLLM's parsers, in their own interpreter."""
    work = [
        {"case": case, "parser": names[0], "length": length, "pieces": answer(case, length)}
        for case, names in CASES.items()
        for length in lengths
        if length <= VLLM_LIMIT
    ]
    script = Path(__file__).with_name("formats_vllm.py")
    done = subprocess.run(
        [python, str(script)],
        input=json.dumps({"work": work, "tools": TOOLS, "repeats": repeats}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    results: dict[str, dict[int, float]] = {}
    for item in json.loads(done.stdout.splitlines()[-1]):
        results.setdefault(item["case"], {})[item["length"]] = item["us"]
    return results


if __name__ == "__main__":
    main()
