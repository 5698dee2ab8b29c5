"""A plot of memory over time as SVG, with nothing but text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil

from benchmarks.engine_memory import Memory

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 20, 90
_COLORS = ("#4363d8", "#e6194b", "#3cb44b", "#911eb4", "#f58231", "#000000")
_STEP_MIB = 100
_LINE_PX = 18


def plot(runs: Sequence[Memory]) -> str:
    """Draws the memory of each run over the share of its time that has passed."""
    top = _STEP_MIB * ceil(max(max(run.mib) for run in runs) / _STEP_MIB)
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(share: float) -> float:
        return _LEFT + across * share

    def y(mib: float) -> float:
        return _TOP + down * (1 - mib / top)

    height = _HEIGHT + _LINE_PX * max(0, len(runs) - 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for mib in range(0, top + 1, _STEP_MIB):
        parts.append(
            f'<path d="M{_LEFT} {y(mib):.1f}h{across}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y(mib) + 4:.1f}" text-anchor="end">{mib}</text>'
        )
    for percent in range(0, 101, 25):
        place = f'x="{x(percent / 100):.1f}" y="{_TOP + down + 16}" text-anchor="middle"'
        parts.append(f"<text {place}>{percent} %</text>")
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 6}" text-anchor="end">MiB</text>')
    for number, run in enumerate(runs):
        color, line = _COLORS[number % len(_COLORS)], _TOP + down + 40 + _LINE_PX * number
        pairs = zip(run.seconds, run.mib, strict=True)
        points = " ".join(f"{x(at / run.seconds[-1]):.1f},{y(mib):.1f}" for at, mib in pairs)
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>',
            f'<path d="M{_LEFT} {line - 4}h24" stroke="{color}" stroke-width="3"/>',
            f'<text x="{_LEFT + 32}" y="{line}">{escape(run.title)}</text>',
        ]
    return "\n".join((*parts, "</svg>\n"))
