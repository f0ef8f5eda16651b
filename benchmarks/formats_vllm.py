"""The part of `formats.py` that runs where vLLM is: its parsers on the same pieces.

Reads one JSON document from standard input; the last line of its output is another.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.tool_parsers import ToolParserManager

SHORT = 1000
"""Longer answers are measured once: where the cost grows, they take a minute."""
MARKERS = ("<tool_call>", "</tool_call>", "<think>", "</think>")


class Vocabulary:
    """As much of a tokenizer as the parsers look at: ids of the markers."""

    def __init__(self) -> None:
        self.all_special_ids: list[int] = []
        self.all_special_tokens: list[str] = []

    def get_vocab(self) -> dict[str, int]:
        """Markers to their ids."""
        return {marker: i for i, marker in enumerate(MARKERS)}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """The id of a marker, or that of all other text."""
        return [self.get_vocab().get(text, len(MARKERS))]

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        """The markers among the ids."""
        return "".join(MARKERS[each] for each in token_ids if each < len(MARKERS))

    def __len__(self) -> int:
        return len(MARKERS) + 1


def feed(parser: Any, pieces: list[str], request: ChatCompletionRequest) -> None:
    """Give a parser one token at a time, as its server does."""
    vocabulary = parser.model_tokenizer.get_vocab()
    text = ""
    token_ids: list[int] = []
    for piece in pieces:
        new_ids = [vocabulary.get(piece, len(MARKERS))]
        before, text = text, text + piece
        ids_before, token_ids = token_ids, token_ids + new_ids
        parser.extract_tool_calls_streaming(
            before, text, piece, ids_before, token_ids, new_ids, request
        )


def main() -> None:
    given = json.load(sys.stdin)
    request = ChatCompletionRequest(
        model="m", messages=[{"role": "user", "content": "x"}], tools=given["tools"]
    )
    results = []
    for item in given["work"]:
        make = ToolParserManager.get_tool_parser(item["parser"])
        times = []
        for _ in range(given["repeats"] if item["length"] <= SHORT else 1):
            parser = make(Vocabulary(), request.tools)
            gc.collect()
            start = time.process_time()
            feed(parser, item["pieces"], request)
            times.append(time.process_time() - start)
        us = min(times) * 1e6 / len(item["pieces"])
        results.append({"case": item["case"], "length": item["length"], "us": us})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
