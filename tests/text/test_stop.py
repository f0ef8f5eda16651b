from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rillm.text.stop import StopMatcher

letters = st.text(alphabet="aab", max_size=40)
stop_lists = st.lists(st.text(alphabet="ab", min_size=1, max_size=6), min_size=1, max_size=4)
cut_lists = st.lists(st.integers(0, 40), max_size=12)


def naive(text: str, stop: list[str], include: bool) -> tuple[str, str | None]:
    """Look at every prefix of the text in turn, shortest first."""
    for end in range(1, len(text) + 1):
        for string in stop:
            if text[:end].endswith(string):
                return text[: end if include else end - len(string)], string
    return text, None


def run(stop: list[str], pieces: list[str], include: bool) -> tuple[str, str | None]:
    matcher = StopMatcher(stop, include_stop=include)
    output, matched = "", None
    for piece in pieces:
        emitted, matched = matcher.push(piece)
        output += emitted
    return output + matcher.finish(), matched


def cut(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@given(text=letters, stop=stop_lists, cuts=cut_lists, include=st.booleans())
@example(text="aab", stop=["ab", "aab"], cuts=[1, 2], include=False)
@example(text="aab", stop=["aab", "ab"], cuts=[1, 2], include=False)
@settings(max_examples=500)
def test_any_cut_of_a_text_gives_the_output_and_match_of_the_whole(
    text: str, stop: list[str], cuts: list[int], include: bool
) -> None:
    assert run(stop, cut(text, cuts), include) == naive(text, stop, include)


@given(text=letters, stop=stop_lists, cuts=cut_lists)
@settings(max_examples=300)
def test_what_is_held_back_is_the_longest_end_that_starts_a_stop_string(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    matcher = StopMatcher(stop)
    seen = output = ""
    for piece in cut(text, cuts):
        emitted, matched = matcher.push(piece)
        if matched:
            return
        seen += piece
        output += emitted
        held = [n for n in range(len(seen) + 1) if any(s.startswith(seen[n:]) for s in stop)]
        assert output == seen[: held[0]]


@given(text=letters, stop=stop_lists, cuts=cut_lists)
def test_nothing_is_held_back_when_the_stop_string_stays_in_the_output(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    matcher = StopMatcher(stop, include_stop=True)
    for piece in cut(text, cuts):
        emitted, matched = matcher.push(piece)
        if matched:
            return
        assert emitted == piece


def test_text_after_a_match_is_dropped() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("so E") == ("so ", None)
    assert matcher.push("ND and more") == ("", "END")
    assert matcher.push("still more") == ("", "END")
    assert matcher.finish() == ""


def test_the_stop_string_that_completes_first_wins_over_the_one_that_begins_first() -> None:
    assert run(["abcde", "c"], ["xabcdey"], include=False) == ("xab", "c")


@pytest.mark.parametrize(("stop", "output"), [(["bc", "abc"], "a"), (["abc", "bc"], "")])
def test_of_two_that_complete_together_the_first_listed_wins(stop: list[str], output: str) -> None:
    assert run(stop, ["ab", "cd"], include=False) == (output, stop[0])


def test_text_held_back_at_the_end_is_released() -> None:
    assert run(["\n\nUser:"], ["Hello", "\n", "\nUse"], include=False) == ("Hello\n\nUse", None)


def test_a_very_long_stop_string_is_found_letter_by_letter() -> None:
    string = "a" * 20_000 + "b"
    pieces = ["a"] * 30_000 + ["b", "c"]
    assert run([string], pieces, include=False) == ("a" * 10_000, string)
