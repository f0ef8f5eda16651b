"""Plots as inline SVG. Colours are classes: the page's style gives them for light and for dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from rillm.bench.figures import shown
from rillm.bench.metrics import percentile

WIDTH: Final = 960
_LEFT, _RIGHT, _TOP, _AXIS = 190, 130, 8, 34
_LANE: Final = 44
_FEW: Final = 40
"""Up to so many values, each is drawn as a dot."""
_WORDED: Final = 2
"""Up to so many colours in a lane, each has its median and p99 beside it."""
_NUM_BINS: Final = 120
_NARROW: Final = 5
"""A logarithmic axis up to so many times its beginning has evenly spaced ticks."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to places along an axis."""

    low: float
    high: float
    start_px: float
    end_px: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is, in pixels."""
        return self.start_px + self._share(value) * (self.end_px - self.start_px)

    def ticks(self) -> list[float]:
        """Round values along the axis."""
        if self.is_log and self.high > _NARROW * self.low:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= 4 else (1,)
            every = (10.0**power * step for power in range(first, last + 1) for step in steps)
        else:
            step = _round_step((self.high - self.low) / 6)
            first = math.ceil(self.low / step)
            every = (step * i for i in range(first, math.floor(self.high / step) + 1))
        return [tick for tick in every if self.low <= tick <= self.high * 1.0001]

    def _share(self, value: float) -> float:
        if self.is_log:
            low = math.log(self.low)
            return (math.log(max(value, self.low)) - low) / (math.log(self.high) - low)
        return (value - self.low) / (self.high - self.low)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough)


def log_scale(values: Iterable[float], start_px: float, end_px: float) -> Scale:
    """A logarithmic scale with some room around the values."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) * 0.85, max(positive) * 1.15
    return Scale(low, high, start_px, end_px, is_log=True)


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one colour."""

    style: str
    """Class of the colour."""
    name: str
    values: Sequence[float]
    """In milliseconds."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One line of a plot of distributions."""

    label: str
    series: Sequence[Series]


@dataclass(frozen=True, slots=True)
class Strip:
    """One request in a timeline: when it was sent and what came when."""

    label: str
    start_ms: float
    end_ms: float
    ticks: Sequence[tuple[float, str]]
    """Times in milliseconds, and classes of their colours."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points with labels."""

    style: str
    name: str
    points: Sequence[tuple[float, float, str]]
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Whisker:
    """A ratio with its quartiles."""

    label: str
    low: float
    middle: float
    high: float
    style: str


def distributions(lanes: Sequence[Lane], caption: str) -> str:
    """Values along a logarithmic axis, one lane below the other.

    Few values are dots; many are the outline of how many there are, with the median and p99 marked.
    """
    lanes = [lane for lane in lanes if any(each.values for each in lane.series)]
    has_words = all(len(lane.series) <= _WORDED for lane in lanes)
    end = WIDTH - (_RIGHT if has_words else _LEFT // 8)
    values = (value for lane in lanes for each in lane.series for value in each.values)
    scale = log_scale(values, _LEFT, end)
    height = _TOP + _LANE * len(lanes)
    parts = list(_x_axis(scale, height, "ms, logarithmic"))
    for number, lane in enumerate(lanes):
        base = _TOP + _LANE * (number + 1)
        parts.append(_text(_LEFT - 12, base - _LANE / 2 + 4, lane.label, "end lane"))
        parts.append(f'<path class="rule" d="M{_LEFT} {base}H{end}"/>')
        for place, series in enumerate(each for each in lane.series if each.values):
            ordered = sorted(series.values)
            if len(ordered) <= _FEW:
                apart = (place - 0.5) * 16 if has_words and len(lane.series) > 1 else 0
                parts += _dots(scale, base - _LANE / 2 + apart, series, ordered)
            else:
                parts += _outline(scale, base, series, ordered)
            if has_words:
                at = base - _LANE / 2 + (4 if len(lane.series) == 1 else -5 + 17 * place)
                parts.append(_text(end + 10, at, _in_words(ordered), series.style))
    return _svg(height + _AXIS, caption, parts)


def _in_words(ordered: Sequence[float]) -> str:
    return f"{shown(percentile(ordered, 0.5))} · p99 {shown(percentile(ordered, 0.99))}"


def _dots(scale: Scale, middle: float, series: Series, ordered: Sequence[float]) -> Iterator[str]:
    for i, value in enumerate(ordered):
        y = middle + (i % 3 - 1) * 3.5
        yield (
            f'<circle class="dot {series.style}" cx="{scale(value):.1f}" cy="{y:.1f}" r="3.5">'
            f"<title>{escape(series.name)} {shown(value)} ms</title></circle>"
        )
    x = scale(percentile(ordered, 0.5))
    yield f'<path class="median {series.style}" d="M{x:.1f} {middle - 10:.1f}v20"/>'


def _outline(scale: Scale, base: float, series: Series, ordered: Sequence[float]) -> Iterator[str]:
    """How many values there are in each part of the axis."""
    counts = [0.0] * (_NUM_BINS + 1)
    width = (scale.end_px - scale.start_px) / _NUM_BINS
    for value in ordered:
        counts[max(0, min(_NUM_BINS, int((scale(value) - scale.start_px) / width)))] += 1
    tallest = max(counts)
    path = f"M{scale.start_px:.1f} {base:.1f}"
    for i, count in enumerate(counts[:-1]):
        x, y = scale.start_px + i * width, base - (_LANE - 10) * count / tallest
        path += f"L{x:.1f} {y:.1f}h{width:.1f}"
    yield (
        f'<path class="area {series.style}" d="{path}V{base:.1f}Z">'
        f"<title>{escape(series.name)}: {_in_words(ordered)}</title></path>"
    )
    for share, style in ((0.5, "median"), (0.99, "tail")):
        x = scale(percentile(ordered, share))
        yield f'<path class="{style} {series.style}" d="M{x:.1f} {base:.1f}v{10 - _LANE}"/>'


def timeline(strips: Sequence[Strip], caption: str) -> str:
    """Each request a line, each chunk a tick where it came."""
    row = 18 if len(strips) <= 12 else 12
    height = _TOP + row * len(strips)
    scale = Scale(0, max(strip.end_ms for strip in strips) or 1, _LEFT, WIDTH - 20)
    parts = list(_x_axis(scale, height, "ms"))
    for number, strip in enumerate(strips):
        top = _TOP + row * number
        begin, end = scale(strip.start_ms), scale(strip.end_ms)
        parts.append(_text(_LEFT - 12, top + row / 2 + 4, strip.label, "end lane"))
        parts.append(
            f'<rect class="strip" x="{begin:.1f}" y="{top + 2}" width="{end - begin:.1f}" '
            f'height="{row - 4}" rx="2"/>'
        )
        paths: dict[str, str] = {}
        last: dict[str, float] = {}
        for at_ms, style in strip.ticks:
            x = round(scale(at_ms), 1)
            if last.get(style) != x:
                paths[style] = paths.get(style, "") + f"M{x} {top + 2}v{row - 4}"
                last[style] = x
        parts += (f'<path class="tick {style}" d="{path}"/>' for style, path in paths.items())
    return _svg(height + _AXIS, caption, parts)


def curves(found: Sequence[Curve], x_name: str, y_name: str, caption: str) -> str:
    """Lines over two axes, the upright one logarithmic; half as wide as the page."""
    width, height, left = WIDTH // 2, 300, 56
    points = [point for curve in found for point in curve.points]
    x_scale = Scale(0, max(x for x, _, _ in points) * 1.12 or 1, left, width - 16)
    values = [y for _, y, _ in points]
    y_scale = log_scale((*values, min(values) * 0.8, max(values) * 1.25), height, 26)
    parts = [_text(left - 44, 14, y_name, "name"), *_x_axis(x_scale, height, x_name)]
    for tick in y_scale.ticks():
        y = y_scale(tick)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{width - 16}"/>')
        parts.append(_text(left - 8, y + 4, f"{tick:g}", "end"))
    for curve in found:
        places = [(x_scale(x), y_scale(y), label) for x, y, label in curve.points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in places)
        dashed = " dashed" if curve.is_dashed else ""
        parts.append(f'<path class="curve {curve.style}{dashed}" d="M{path}"/>')
        for (x, y, label), (_, value, _) in zip(places, curve.points, strict=True):
            parts.append(
                f'<circle class="dot {curve.style}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
                f"<title>{escape(f'{curve.name}, {label}: {shown(value)} ms')}</title></circle>"
            )
            if not curve.is_dashed:
                parts.append(_text(x, y + 19, label, "middle point"))
    return _svg(height + _AXIS, caption, parts, width)


def whiskers(found: Sequence[Whisker], caption: str) -> str:
    """Ratios along a logarithmic axis around 1."""
    row = 22
    height = _TOP + row * len(found)
    far = max(max(each.high, 1 / max(each.low, 1e-6)) for each in found)
    far = max(far * 1.1, 1.3)
    scale = Scale(1 / far, far, _LEFT + 60, WIDTH - _RIGHT, is_log=True)
    parts = list(_x_axis(scale, height, "B / A, logarithmic"))
    parts.append(f'<path class="one" d="M{scale(1):.1f} {_TOP}V{height}"/>')
    for number, each in enumerate(found):
        y = _TOP + row * number + row / 2
        parts.append(_text(_LEFT + 48, y + 4, each.label, "end lane"))
        bar = f"M{scale(each.low):.1f} {y}H{scale(each.high):.1f}"
        parts.append(f'<path class="whisker {each.style}" d="{bar}"/>')
        parts.append(
            f'<circle class="dot {each.style}" cx="{scale(each.middle):.1f}" cy="{y}" r="4.5"/>'
        )
        parts.append(_text(WIDTH - _RIGHT + 10, y + 4, f"{each.middle:.2f}", each.style))
    return _svg(height + _AXIS, caption, parts)


def _x_axis(scale: Scale, height: float, name: str) -> Iterator[str]:
    for tick in scale.ticks():
        x = scale(tick)
        yield f'<path class="grid" d="M{x:.1f} {_TOP}V{height}"/>'
        yield _text(x, height + 16, f"{tick:g}", "middle")
    yield _text(scale.end_px, height + 31, name, "end name")


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(height: float, caption: str, parts: Sequence[str], width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(caption)}">'
        f"{''.join(parts)}</svg>"
    )
