"""Static drawings: the value circle before and after, and small heat maps, as SVG.

SVG rather than a plot library: small multiples stay light, print sharply, need no script and take
their colours from the page, so that light and dark both work.
"""

from __future__ import annotations

import math

from markupsafe import Markup, escape

from valign.report.words import number
from valign.study.results import Block, Measured, SystemInfo

_R, _CX, _CY = 86.0, 180.0, 112.0
_WIDTH, _HEIGHT = 360, 224


def circle(block: Block, target: int, system: SystemInfo, *, scale: str, top: float) -> Markup:
    """Presence of every value before (dashed) and after (filled) steering towards one target.

    Values stand at equal steps in circle order (values that share a wedge of the theory stand
    side by side). The rim is `top`; the centre is 0, or -`top` where scores have signs.
    """
    n = len(system.values)
    before = [m.value for m in block.c0]
    after = [m.value for m in block.c[target]]
    named = named_values(block.targets[target].target, system)
    floor = 0.0 if scale == "presence" else -top

    def place(k: int, score: float) -> tuple[float, float]:
        share = (min(max(score, floor), top) - floor) / (top - floor) if top > floor else 0.0
        return _at(k, n, _R * share)

    parts = []
    for ring in (0.5, 1.0):
        parts.append(f'<circle class="ring" cx="{_CX}" cy="{_CY}" r="{_R * ring:.1f}"/>')
    for k in range(n):
        x, y = _at(k, n, _R)
        on = " on" if k in named else ""
        parts.append(f'<line class="spoke{on}" x1="{_CX}" y1="{_CY}" x2="{x:.1f}" y2="{y:.1f}"/>')
    parts.append(f'<polygon class="after" points="{_points(after, place)}"/>')
    parts.append(f'<polygon class="before" points="{_points(before, place)}"/>')
    for k, title in enumerate(system.titles):
        x, y = place(k, after[k])
        known = math.isfinite(after[k])
        if known:
            dot = "dot on" if k in named else "dot"
            tip = (
                f"{title}: {number(before[k], percent=scale == 'presence')} before, "
                f"{number(after[k], percent=scale == 'presence')} after"
            )
            parts.append(
                f'<circle class="{dot}" cx="{x:.1f}" cy="{y:.1f}" r="{4 if k in named else 2.5}">'
                f"<title>{escape(tip)}</title></circle>"
            )
        lx, ly = _at(k, n, _R + 11)
        across = lx - _CX
        anchor = "middle" if abs(across) < 12 else "start" if across > 0 else "end"
        on = " on" if k in named else ""
        parts.append(
            f'<text class="label{on}" x="{lx:.1f}" y="{ly + 4:.1f}" text-anchor="{anchor}">'
            f"{escape(_short(title))}</text>"
        )
    rim = number(top, percent=scale == "presence")
    rx, ry = _at(0.5, n, _R - 9)  # between the first two spokes, clear of the names outside
    parts.append(f'<text class="rim" x="{rx:.1f}" y="{ry:.1f}" text-anchor="middle">{rim}</text>')
    return _svg(_WIDTH, _HEIGHT, f"Value circle, target {block.targets[target].target}", parts)


def bars(block: Block, target: int, system: SystemInfo, *, scale: str, top: float) -> Markup:
    """The same for systems without a circle: one bar per value, a line where it was before."""
    left, wide, step = 120.0, 180.0, 22.0
    named = named_values(block.targets[target].target, system)
    floor = 0.0 if scale == "presence" else -top

    def x(score: float) -> float:
        return left + wide * (min(max(score, floor), top) - floor) / (top - floor)

    parts = []
    for k, title in enumerate(system.titles):
        y = 8 + k * step
        b, a = block.c0[k].value, block.c[target][k].value
        on = " on" if k in named else ""
        parts.append(
            f'<text class="label{on}" x="{left - 6}" y="{y + 11:.1f}" text-anchor="end">'
            f"{escape(_short(title, 18))}</text>"
        )
        if math.isfinite(a):
            start, end = sorted((x(0.0), x(a)))
            parts.append(
                f'<rect class="after" x="{start:.1f}" y="{y:.1f}" height="14" '
                f'width="{max(end - start, 0.5):.1f}"/>'
            )
        if math.isfinite(b):
            parts.append(
                f'<line class="before" x1="{x(b):.1f}" x2="{x(b):.1f}" y1="{y - 2:.1f}" '
                f'y2="{y + 16:.1f}"/>'
            )
    height = int(16 + step * len(system.values))
    return _svg(_WIDTH, height, f"Values, target {block.targets[target].target}", parts)


def small_heat(block: Block, system: SystemInfo, *, top: float) -> Markup:
    """Signed shifts of one block as coloured cells without text; rows are targets."""
    cell = 15
    parts = []
    for i, row in enumerate(block.shift):
        named = named_values(block.targets[i].target, system)
        for j, m in enumerate(row):
            mark = " own" if j in named else ""
            parts.append(
                f'<rect class="cell{mark}" x="{j * cell + 1}" y="{i * cell + 1}" '
                f'width="{cell - 1}" height="{cell - 1}" style="{shade(m, top)}"/>'
            )
    width, height = cell * len(system.values) + 2, cell * len(block.shift) + 2
    return _svg(width, height, f"Leakage of {block.label}", parts, fixed=True)


def shade(m: Measured, top: float) -> str:
    """Fill of a cell: towards `--rise` or `--fall` by size; both colours come from the page."""
    if not m.defined:
        return "fill:var(--panel);background:var(--panel)"
    share = round(100 * min(abs(m.value) / top, 1.0)) if top > 0 else 0
    colour = "--rise" if m.value > 0 else "--fall"
    mixed = f"color-mix(in srgb, var({colour}) {share}%, var(--zero))"
    return f"fill:{mixed};background:{mixed}"


def _points(scores: list[float], place) -> str:  # type: ignore[no-untyped-def]
    spots = [place(k, s) for k, s in enumerate(scores) if math.isfinite(s)]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)


def _at(k: float, n: int, radius: float) -> tuple[float, float]:
    angle = 2 * math.pi * k / n - math.pi / 2
    return _CX + radius * math.cos(angle), _CY + radius * math.sin(angle)


def named_values(target: str, system: SystemInfo) -> set[int]:
    """Columns of the values a target names."""
    names = {part.partition("=")[0].strip() for part in target.split(",")}
    return {k for k, value in enumerate(system.values) if value in names}


def _short(title: str, limit: int = 15) -> str:
    return title if len(title) <= limit else title[: limit - 1] + "…"


def _svg(width: int, height: int, title: str, parts: list[str], *, fixed: bool = False) -> Markup:
    size = f'width="{width}" height="{height}" ' if fixed else ""
    return Markup(
        f'<svg {size}viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
