"""Small multiples: one little chart per value with the gain of every method on it, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from valign.report.words import interval
from valign.study.results import Block

_LEFT, _WIDE, _STEP, _TOP = 92.0, 150.0, 15.0, 6.0


def gains_of(blocks: Sequence[Block], target: str, *, title: str, percent: bool) -> Markup:
    """Gain towards one target by method, dot with interval; all charts share one scale.

    Args:
        blocks: in the order of the lines; all of them set the scale.
        target: as it stands in the blocks.
    """
    ends = [
        x
        for block in blocks
        for t in block.targets
        if t.metrics.gain.defined
        for x in (t.metrics.gain.low, t.metrics.gain.high)
    ]
    low, high = min([0.0, *ends]), max([0.1, *ends])

    def x(value: float) -> float:
        return _LEFT + _WIDE * (value - low) / (high - low)

    bottom = _TOP + _STEP * len(blocks)
    parts = [f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{_TOP}" y2="{bottom}"/>']
    for k, block in enumerate(blocks):
        y = _TOP + _STEP * (k + 0.5)
        name = block.method if len(block.method) <= 15 else block.method[:14] + "…"
        parts.append(
            f'<text class="label" x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(name)}</text>"
        )
        gain = next((t.metrics.gain for t in block.targets if t.target == target), None)
        if gain is None or not gain.defined:
            continue
        sure = " sure" if gain.low > 0 or gain.high < 0 else ""
        tip = f"{block.label}: {interval(gain, percent=percent, signed=True)}"
        parts.append(
            f'<g class="gain{sure}"><title>{escape(tip)}</title>'
            f'<line x1="{x(gain.low):.1f}" x2="{x(gain.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<circle cx="{x(gain.value):.1f}" cy="{y:.1f}" r="3.4"/></g>'
        )
    ticks = (("middle", 0.0), ("end", high))
    for anchor, tick in ticks:
        shown = f"{100 * tick:+.0f}" if percent else f"{tick:+.2g}"
        parts.append(
            f'<text class="rim" x="{x(tick):.1f}" y="{bottom + 11:.1f}" '
            f'text-anchor="{anchor}">{"0" if not tick else shown}</text>'
        )
    width, height = int(_LEFT + _WIDE + 6), int(bottom + 15)
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(f"Gains towards {title}")}">' + "".join(parts) + "</svg>"
    )
