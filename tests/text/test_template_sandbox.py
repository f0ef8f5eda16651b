"""Templates that would go on for ever, or make too much, are refused in bounded time and memory.

One that gets through fails by the timeout of its test, or takes the machine's memory.
"""

from __future__ import annotations

from typing import Any

import pytest

from rillm.errors import InvalidRequestError
from rillm.text import template_sandbox
from rillm.text.chat_template import ChatTemplate

CHAT = [{"role": "user", "content": "a" * 2000}]
DOUBLED = (
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = DOUBLE %}{% endfor %}"
)
NESTED = DOUBLED.replace("'aa'", "['a']").replace("DOUBLE", "[n.x, n.x]")

ENDLESS = {
    "loops in loops": "{% set t = messages[0].content %}"
    + "{% for a in t %}{% for b in t %}{% for c in t %}{% endfor %}{% endfor %}{% endfor %}",
    "loops that pass everything over": "{% set t = messages[0].content %}"
    + "{% for a in t %}{% for b in t %}{% for c in t if 0 %}{% endfor %}{% endfor %}{% endfor %}",
    "loops over filters": "{% set t = messages[0].content %}"
    + "{% for a in t|map('upper') %}{% for b in t|map('upper') %}{% for c in t|select('eq', 'b') %}"
    + "{% endfor %}{% endfor %}{% endfor %}",
    "calls that double": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    + "{% endmacro %}{{ f(60) }}",
    "loops that recurse": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "numbers": "{% for i in range(10**9) %}{% endfor %}",
}
LARGE = {
    "product of a text": "{{ 'a' * 10**10 }}",
    "product the other way": "{{ 10**10 * 'a' }}",
    "product of a list": "{{ ([0] * 10**10) | length }}",
    "power": "{{ 10 ** (10 ** 8) }}",
    "product of numbers": "{% set n = namespace(x=10) %}"
    + "{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x > 0 }}",
    "sum that doubles": DOUBLED.replace("DOUBLE", "n.x + n.x"),
    "joint that doubles": DOUBLED.replace("DOUBLE", "n.x ~ n.x"),
    "list that doubles": DOUBLED.replace("'aa'", "['a']").replace("DOUBLE", "n.x + n.x"),
    "replacement that doubles": DOUBLED.replace("DOUBLE", "n.x | replace('a', 'aa')"),
    "method that doubles": DOUBLED.replace("DOUBLE", "n.x.replace('a', 'aa')"),
    "join that multiplies": DOUBLED.replace("DOUBLE", "n.x.join([n.x, n.x, n.x])"),
    "filter that joins": DOUBLED.replace("DOUBLE", "[n.x, n.x] | join(n.x)"),
    "written out": NESTED + "{{ n.x }}",
    "written as JSON": NESTED + "{{ n.x | tojson }}",
    "made a text": NESTED + "{{ (n.x | string) | length }}",
    "joined": NESTED + "{{ (n.x ~ 'a') | length }}",
    "filled in": NESTED + "{{ ('%s' % n.x) | length }}",
    "formatted": NESTED + "{{ ('{}'.format(n.x)) | length }}",
    "width of a field": "{{ '%9999999999d' % 1 }}",
    "width from elsewhere": "{{ '%*d' % (10**9, 1) }}",
    "width of a format": "{{ '{:9999999999}'.format(1) }}",
    "width of a format from elsewhere": "{{ '{:{}}'.format(1, 10**9) }}",
    "filter with a width": "{{ '%9999999999d' | format(1) }}",
    "centre": "{{ 'a' | center(10**9) }}",
    "method centre": "{{ 'a'.center(10**9) }}",
    "zeros": "{{ '1'.zfill(10**9) }}",
    "tabs": "{{ ('\t' * 10**6).expandtabs(10**5) }}",
    "translation": "{{ 'aaa'.translate({97: 'a' * 10**6}) }}",
    "indentation": "{{ ('\n' * 10**6) | indent(10**5) }}",
    "indentation of JSON": "{{ messages | tojson(indent=10**9) }}",
    "bytes": "{{ (5).to_bytes(10**10, 'big') | length }}",
    "batches": "{{ [1] | batch(10**9, 0) | list | length }}",
    "slices": "{{ [1] | slice(10**9) | list | length }}",
    "rounding": "{{ 1.5 | round(10**8) }}",
    "filler": "{{ lipsum(n=10**8) }}",
    "prompt": "{% for i in range(2000) %}{{ 'x' * 100000 }}{% endfor %}",
}


@pytest.mark.parametrize("source", [*ENDLESS.values(), *LARGE.values()], ids=[*ENDLESS, *LARGE])
def test_what_does_not_end_or_is_too_large_is_refused(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_STEPS", 200_000)
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.5)
    monkeypatch.setattr(template_sandbox, "MAX_PROMPT_CHARACTERS", 1 << 22)
    with pytest.raises(InvalidRequestError, match="the chat template cannot render") as caught:
        ChatTemplate(source).render(CHAT)
    assert caught.value.param == "messages"


def test_time_is_bounded_where_steps_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "MAX_SECONDS", 0.2)
    source = "{% for i in range(900000) %}{{ (messages[0].content * 500) | length }}{% endfor %}"
    with pytest.raises(InvalidRequestError, match="seconds"):
        ChatTemplate(source).render(CHAT)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for m in messages %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{% endfor %}", ""),
        ("{{ 'a' ~ 1 ~ none ~ [1, 'b'] ~ ('c' ~ 2.5) }}", "a1None[1, 'b']c2.5"),
        ("{{ 'a' + 'b' * 3 }}{{ 2 ** 8 }}{{ '%05d|%s' % (7, 'x') }}", "abbb25600007|x"),
        ("{{ '{:>5}|{}'.format('a', 1) }}{{ [1] + [2] }}{{ 7 % 4 }}", "    a|1[1, 2]3"),
        ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ ['a', 'b'] | join(', ') }}{{ 'aXb' | replace('X', 'YY') }}", "a, baYYb"),
        ("{% for k, v in {'a': 1}.items() if v %}{{ k ~ v }}{% else %}none{% endfor %}", "a1"),
        (
            "{% for x in [3, [1, 2]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
            "",
        ),
        ("{{ 'a\nb' | indent(2) }}{{ 'ab' | center(6) }}{{ 'a'.rjust(3) }}", "a\n  b  ab    a"),
    ],
)
def test_what_is_small_is_as_in_jinja(source: str, expected: str) -> None:
    text = ChatTemplate(source).render([{"role": "user", "content": "x"}])
    assert text == (expected or {"1True1": "1True1", "312": "312"}[text])


def test_names_of_the_budget_are_not_a_requests_to_give() -> None:
    for name in ("range", "@budget"):
        variables: dict[str, Any] = {name: 5}
        try:
            text = ChatTemplate("{% for i in range(3) %}{{ i }}{% endfor %}").render(
                CHAT, variables=variables
            )
        except InvalidRequestError:
            continue
        assert text == "012"
