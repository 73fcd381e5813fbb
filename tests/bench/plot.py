# SPDX-License-Identifier: GPL-2.0-or-later
"""An SVG of horizontal bars: ours by the best peer, the floor and the aim marked.  It follows
the reader's light or dark scheme."""
import pathlib
from xml.sax.saxutils import escape

from verdict import Summary

WIDTH, LEFT, RIGHT = 860, 330, 70
ROW, BAR, TOP, BOTTOM = 22, 12, 62, 34

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.faint { fill: #57606a }
.grid { stroke: #d0d7de; stroke-width: 1 }
.one { stroke: #57606a; stroke-width: 1.5 }
.good { fill: #1f6feb } .bad { fill: #cf222e }
.floor { stroke: #24292f; stroke-width: 2 } .aim { stroke: #24292f; stroke-width: 1; \
stroke-dasharray: 2 2 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .faint { fill: #8d96a0 }
.grid { stroke: #30363d } .one { stroke: #8d96a0 }
.good { fill: #4493f8 } .bad { fill: #f85149 }
.floor, .aim { stroke: #e6edf3 }
}"""


def grid_step(most: float) -> float:
    return next((step for step in (0.25, 0.5, 1, 2, 5, 10, 20, 50) if most / step <= 8), 100)


def line(kind: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'


def bars(summaries: list[Summary], at) -> list[str]:
    parts = []
    for index, said in enumerate(summaries):
        middle = TOP + index * ROW + ROW / 2
        kind = "bad" if said.verdict.startswith("below") else "good"
        parts += [
            f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">'
            f'{escape(said.workload.title)}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{middle - BAR / 2:.1f}" '
            f'width="{at(said.rate) - LEFT:.1f}" height="{BAR}" rx="2">'
            f'<title>{escape(said.best)}: {escape(said.verdict)}</title></rect>',
            f'<text x="{WIDTH - 12}" y="{middle + 4:.1f}" text-anchor="end">'
            f'{said.rate:.2f}</text>']
        if said.workload.goal.rate:
            for which, value in zip(("floor", "aim"), said.workload.goal.rate):
                parts.append(line(which, at(value), middle - BAR / 2 - 3, middle + BAR / 2 + 3))
    return parts


def svg(summaries: list[Summary]) -> str:
    shown = [said for said in summaries if said.rate]
    most = max([1.0] + [max(said.rate, *(said.workload.goal.rate or (0,))) for said in shown])
    step = grid_step(most)
    bottom = TOP + len(shown) * ROW

    def at(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * value / most

    height = bottom + BOTTOM
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
             f'viewBox="0 0 {WIDTH} {height}" role="img" '
             'aria-label="throughput by workload, as a multiple of the best peer">',
             f"<style>{STYLE}</style>",
             f'<text class="title" x="{LEFT}" y="20">'
             'Throughput, by the best peer of the run</text>',
             f'<text class="faint" x="{LEFT}" y="38">bold mark: floor; dashed mark: aim; '
             'red: some floor (throughput, CPU, null) missed</text>']
    for count in range(int(most / step) + 1):
        value = count * step
        parts.append(line("grid", at(value), TOP - 6, bottom))
        parts.append(f'<text class="faint" x="{at(value):.1f}" y="{bottom + 18}" '
                     f'text-anchor="middle">{value:g}</text>')
    parts.append(line("one", at(1), TOP - 6, bottom))
    return "\n".join([*parts, *bars(shown, at), "</svg>"]) + "\n"


def write(path: pathlib.Path, summaries: list[Summary]):
    path.write_text(svg(summaries), encoding="utf-8")
