"""Geometry for the usage charts: numbers in, rectangles out. Pure; templates draw them as SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

WIDTH = 720
HEIGHT = 200
LEFT = 56
BOTTOM = 24
TOP = 10


@dataclass(frozen=True, slots=True)
class Segment:
    series: str
    value: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Bar:
    day: date
    x: float
    width: float
    total: int
    segments: tuple[Segment, ...]
    is_labelled: bool

    @property
    def middle(self) -> float:
        return round(self.x + self.width / 2, 1)


@dataclass(frozen=True, slots=True)
class Tick:
    value: int
    y: float


@dataclass(frozen=True, slots=True)
class StackedBars:
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    baseline: int = HEIGHT - BOTTOM

    @property
    def is_empty(self) -> bool:
        return not any(bar.total for bar in self.bars)


def stacked_bars(days: Sequence[tuple[date, Mapping[str, int]]], series: Sequence[str]) -> StackedBars:
    """One bar a day, its `series` stacked from the baseline in the order given.

    The scale ends at a round number at or above the tallest bar; about eight days carry a label.
    """
    top_value = _round_up(max((sum(values.values()) for _, values in days), default=0))
    plot = HEIGHT - BOTTOM - TOP
    step = (WIDTH - LEFT) / max(len(days), 1)
    label_every = max(1, -(-len(days) // 8))
    bars = []
    for index, (day, values) in enumerate(days):
        y = float(HEIGHT - BOTTOM)
        segments = []
        for name in series:
            value = values.get(name, 0)
            if value:
                height = max(plot * value / top_value, 1.0)
                y -= height
                segments.append(Segment(name, value, round(y, 1), round(height, 1)))
        bars.append(
            Bar(
                day=day,
                x=round(LEFT + index * step + step * 0.15, 1),
                width=round(step * 0.7, 1),
                total=sum(values.values()),
                segments=tuple(segments),
                is_labelled=index % label_every == 0,
            )
        )
    ticks = tuple(Tick(top_value * part // 4, round(HEIGHT - BOTTOM - plot * part / 4, 1)) for part in (0, 2, 4))
    return StackedBars(tuple(bars), ticks)


def _round_up(value: int) -> int:
    """The next of 1, 2 or 5 times a power of ten, and never less than four micros, so that ticks differ."""
    bound = 1
    while bound < value:
        for factor in (2, 5, 10):
            if bound * factor >= value:
                return max(bound * factor, 4)
        bound *= 10
    return max(bound, 4)
