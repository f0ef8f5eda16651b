"""Asks the bundled model 200 held-out prompts, greedily, and counts the right answers.

Names of functions and parameters and the values of these prompts never occur in the training
text. A table by kind goes to stdout; the last line is one JSON document. The exit status is 1 if
a group of kinds is below its acceptance.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import call_kinds
from conversations import Conversation
from data import BUNDLED
from mixture import evaluation_conversations
from tqdm import tqdm
from words import Lexicon

MAX_TOKENS = 256
ACCEPTANCE = 0.9
"""Least share of right answers in each group."""

GROUPS = {
    "call": ("call", "call_after_sentence", "parallel_same", "parallel_two"),
    "plain": ("plain", "plain_with_tools"),
    "later_turn": ("after_response", "second_request"),
}

Generate = Callable[[Conversation], str]


@dataclass
class Answer:
    """What the model wrote, taken apart."""

    content: str
    reasoning: str | None
    calls: list[dict[str, Any]] = field(default_factory=list)
    broken: bool = False


def take_apart(text: str) -> Answer:
    """Split an answer into reasoning, content and calls; ``broken`` if it does not parse."""
    reasoning = None
    thought = re.fullmatch(r"<think>\n(.*?)\n</think>\n\n(.*)", text, re.DOTALL)
    if thought:
        reasoning, text = thought[1], thought[2]
    answer = Answer("", reasoning)
    for body in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.DOTALL):
        try:
            answer.calls.append(json.loads(body))
        except json.JSONDecodeError:
            answer.broken = True
    answer.content = re.sub(r"<tool_call>\n.*?\n</tool_call>", "", text, flags=re.DOTALL).strip()
    if re.search(r"</?(think|tool_call|tool_response)>", answer.content):
        answer.broken = True
    return answer


def is_plain(text: str) -> bool:
    """Tell whether ``text`` is plain sentences: no markup, a sentence's end at its end."""
    return text.endswith((".", "!", "?")) and not re.search(r"\*\*|```|^#+ |<\|", text)


def is_right(conversation: Conversation, text: str) -> bool:
    """Judge one answer against what the conversation expects."""
    expected = conversation["expected"]
    answer = take_apart(text)
    if answer.broken or (answer.reasoning is not None) != conversation["enable_thinking"]:
        return False
    if json.dumps(answer.calls, sort_keys=True) != json.dumps(expected["calls"], sort_keys=True):
        return False
    if expected["calls"] and conversation["kind"] != "call_after_sentence":
        return not answer.content or is_plain(answer.content)
    return is_plain(answer.content) and all(part in answer.content for part in expected["contains"])


def with_transformers(model: Path) -> Generate:
    """Generate with transformers, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def generate(conversation: Conversation) -> str:
        prompt = tokenizer.apply_chat_template(
            conversation["messages"][:-1],
            tools=conversation["tools"] or None,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=conversation["enable_thinking"],
        )
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        output = network.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            temperature=None,
            top_p=None,
        )
        written = output[0, inputs["input_ids"].shape[1] :]
        return tokenizer.decode(written, skip_special_tokens=True)

    return generate


def with_rillm(model: Path) -> Generate:
    """Generate with the project's own engine."""
    from rillm import LLM, SamplingParams

    engine = LLM(model=str(model))
    sampling = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)

    def generate(conversation: Conversation) -> str:
        outputs = engine.chat(
            conversation["messages"][:-1],
            sampling_params=sampling,
            tools=conversation["tools"] or None,
            use_tqdm=False,
            chat_template_kwargs={"enable_thinking": conversation["enable_thinking"]},
        )
        return outputs[0].outputs[0].text

    return generate


def known_functions(count: int) -> list[Conversation]:
    """Requests for everyday functions, whose names are in the training text, with unseen values.

    They are reported beside the 200 and not counted with them.
    """
    lexicon = Lexicon(random.Random(30_000), held_out=True)
    return [call_kinds.call_realistic(lexicon) for _ in range(count)]


def report(judged: list[tuple[Conversation, bool]]) -> dict[str, Any]:
    """Numbers and shares by kind, by group and by whether thinking was on."""

    def tally(rights: list[bool]) -> dict[str, Any]:
        share = round(sum(rights) / len(rights), 4) if rights else 0.0
        return {"prompts": len(rights), "right": sum(rights), "share": share}

    def of(test: Callable[[Conversation], bool]) -> dict[str, Any]:
        return tally([right for conversation, right in judged if test(conversation)])

    counted = {kind for kinds in GROUPS.values() for kind in kinds}
    kinds = dict.fromkeys(conversation["kind"] for conversation, _ in judged)
    groups = {group: of(lambda c, g=group: c["kind"] in GROUPS[g]) for group in GROUPS}
    return {
        "all": of(lambda c: c["kind"] in counted),
        "groups": groups,
        "kinds": {kind: of(lambda c, k=kind: c["kind"] == k) for kind in kinds},
        "thinking_on": of(lambda c: c["kind"] in counted and c["enable_thinking"]),
        "thinking_off": of(lambda c: c["kind"] in counted and not c["enable_thinking"]),
        "accepted": all(group["share"] >= ACCEPTANCE for group in groups.values()),
    }


def main() -> int:
    """Evaluate and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--backend", choices=("rillm", "transformers"), default="rillm")
    parser.add_argument("--json", type=Path, help="also write the JSON document here")
    parser.add_argument("--failures", action="store_true", help="print wrong answers to stderr")
    parser.add_argument("--seed", type=int, default=20_000, help="draws the prompts")
    options = parser.parse_args()
    backends = {"rillm": with_rillm, "transformers": with_transformers}
    generate = backends[options.backend](options.model)
    judged = []
    conversations = [*evaluation_conversations(options.seed), *known_functions(40)]
    for conversation in tqdm(conversations, file=sys.stderr):
        text = generate(conversation)
        judged.append((conversation, is_right(conversation, text)))
        if options.failures and not judged[-1][1]:
            asked = conversation["messages"][-2]["content"]
            print(
                f"{conversation['kind']}: {asked!r}\n  wrote {text!r}\n  expected "
                f"{json.dumps(conversation['expected'], ensure_ascii=False)}",
                file=sys.stderr,
            )
    result = {"backend": options.backend, **report(judged)}
    print(f"{'kind':<22}{'prompts':>8}{'right':>8}{'share':>9}")
    rows = [
        *result["kinds"].items(),
        ("thinking on", result["thinking_on"]),
        ("thinking off", result["thinking_off"]),
        ("all 200", result["all"]),
    ]
    for name, row in rows:
        print(f"{name:<22}{row['prompts']:>8}{row['right']:>8}{row['share']:>9.1%}")
    line = json.dumps(result)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0 if result["accepted"] else 1


if __name__ == "__main__":
    sys.exit(main())
