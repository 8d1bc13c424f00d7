"""What the NAT matrix looks like on paper: totals, tables and a picture, made of outcomes alone.

The picture is SVG written by hand: a plotting library would be the largest dependency of the project, for
twelve rows of rectangles.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tests.lab import Nat
from tests.lab.matrix import Outcome, possible

__all__ = ["OTHER", "Cell", "markdown", "picture", "summarise"]

OTHER = "aioice"  # in the place of a strategy's name: whom we are compared with
KINDS = [nat.slug for nat in Nat]
MODES = {False: "Without a relay", True: "With a relay"}
MILESTONES = ("acknowledged", "answered", "proven", "in hand")
SHORT = {  # names of strategies that fit a cell
    "punch-udp": "punch",
    "punch-tcp": "punch-tcp",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """All attempts of one pair, in one direction, with or without relays.

    Args:
        caller, callee, relay: as of `Outcome`.
        outcomes: in the order they came.
    """

    caller: str
    callee: str
    relay: bool
    outcomes: tuple[Outcome, ...]

    @property
    def times(self) -> list[float]:
        """Seconds of the attempts that joined, sorted."""
        return sorted(one.seconds for one in self.outcomes if one.joined)

    @property
    def joined(self) -> bool:
        """Every attempt."""
        return len(self.times) == len(self.outcomes)

    @property
    def expected(self) -> bool:
        """With a relay, all; without, those that `possible` says."""
        return self.relay or possible(Nat.named(self.caller), Nat.named(self.callee))

    @property
    def wanting(self) -> bool:
        """Should have joined, and has not."""
        return self.expected and not self.joined

    @property
    def winner(self) -> str:
        """The strategy that won most often, with a mark if others won too."""
        won = Counter(one.strategy for one in self.outcomes if one.joined)
        return won.most_common(1)[0][0] + ("*" if len(won) > 1 else "") if won else ""


def summarise(outcomes: Iterable[Outcome]) -> list[Cell]:
    """Cells, in the order of the first attempt at each."""
    found: dict[tuple[str, str, bool], list[Outcome]] = defaultdict(list)
    for one in outcomes:
        found[one.caller, one.callee, one.relay].append(one)
    return [Cell(*key, tuple(value)) for key, value in found.items()]


def quantile(values: Sequence[float], share: float) -> float:
    """Of sorted values, interpolated (the "inclusive" method of `statistics.quantiles`)."""
    at = (len(values) - 1) * share
    low, high = math.floor(at), math.ceil(at)
    return values[low] + (values[high] - values[low]) * (at - low)


def milestones(outcome: Outcome) -> dict[str, float]:
    """Seconds from the call to the offer's acknowledgement, the answer, the proof, and the result."""
    found: dict[str, float] = {}
    for step in outcome.trace:
        done = step["phase"] == "complete" and not step["remote"]
        if done and step["step"] == "signal":
            found.setdefault("acknowledged", step["at"])
        if done and step["step"] == "answer":
            found.setdefault("answered", step["at"])
        if done and step["step"] == "prove" and step["strategy"] == outcome.strategy:
            found.setdefault("proven", step["at"])
    return found | {"in hand": outcome.seconds}


# -- the page ------------------------------------------------------------------------------------


def markdown(cells: list[Cell], others: list[Cell], where: dict[str, Any]) -> str:
    """docs/nat-matrix.md."""
    modes = [mode for mode in MODES if any(cell.relay is mode for cell in cells)]
    parts = ["# Every NAT against every other", *_introduction(where), "## Totals", *_totals(cells, modes)]
    for mode in modes:
        chosen = [cell for cell in cells if cell.relay is mode]
        parts += [f"## {MODES[mode]}", _matrix(chosen), *_failures(chosen)]
    parts += ["## Where the time goes", *_phases(cells)]
    if others:
        parts += [f"## Beside aioice {where['aioice']}", *_beside(cells, others)]
    parts += ["## Every pair", _percentiles(cells)]
    return "\n\n".join(parts) + "\n"


MEASURED = """\
Measured on {date} in the lab of this repository ([testing.md](testing.md)): real network namespaces,
nftables NATs, mosquitto and coturn, on {cores} cores, Linux {kernel}, Python {python}, warpgate-core
{version}, {plugins}. Each line delays by {line:.0f} ms one way, so a round trip between two homes (P) takes
{pair:.0f} ms and one way through a broker (S) {signal:.0f} ms; {loss:.0%} of packets are lost. Attempts per
pair: {runs}. IPv4 only. The time is that of `auto_connect`, until the caller holds a proven pipe; then one
message goes each way. Nodes are new for each attempt and know their NATs already, as far as they can within
a second where UDP is blocked. Brokers and relay listen on port 443 too, or nobody behind only-443 would
reach anything. {note}
"""
NOT_POSSIBLE = """\
Not possible without a relay: only-443 with anybody, since nobody's mapped port is 443; two NATs that both
map per destination, unless both count their ports up; and UDP blocked at one end with such a NAT at the
other, as over TCP nobody can guess fast enough.
"""
ICE = """\
Between homes of the same kinds, with the same lines, STUN server and relay. Its candidates were gathered
before, and the descriptions took as long as through a broker: the callee had the caller's after S, the
caller the callee's after 2S. Behind UDP blocks it was told to reach the relay over TCP, port 443. It was
given 6 s per pair. Medians in ms.
"""
MILESTONES_ARE = """\
Median ms since the call, from `pipe.trace`: when the offer was acknowledged, when the answer was there,
when the path that won was proven, and when the caller held the pipe.
"""


def _introduction(where: dict[str, Any]) -> list[str]:
    delay = where["delay"] * 1e3
    plugins = ", ".join(f"{name} {version}" for name, version in where["plugins"].items())
    numbers = {"line": delay, "pair": 4 * delay, "signal": 2 * delay}
    return [
        "![Heat map of the matrix](nat-matrix.svg)",
        textwrap.fill(MEASURED.format_map(where | numbers | {"plugins": plugins}), 110),
        "To repeat it, as root:\n\n    uv run python benchmarks/bench_nat_matrix.py --write-docs",
    ]


def _totals(cells: list[Cell], modes: list[bool]) -> list[str]:
    lines = []
    for mode in modes:
        chosen = [cell for cell in cells if cell.relay is mode]
        joined = [cell for cell in chosen if cell.joined]
        times = sorted(quantile(cell.times, 0.5) for cell in joined)
        median = f", at a median of {times[len(times) // 2]:.2f} s" if times else ""
        wanted = [cell for cell in chosen if cell.expected]
        met = sum(cell.joined for cell in wanted)
        lines.append(f"- {MODES[mode]}: **{len(joined)} of {len(chosen)} pairs**{median}.")
        if not mode:
            lines.append(
                f"  {len(wanted)} are possible within the bounds of the strategies, {met} of these joined."
            )
        else:
            relayed = sum(any(one.kind == "relay" for one in cell.outcomes) for cell in joined)
            lines.append(f"  {relayed} of them by a relay, the others without.")
    left = Counter(cell.joined for cell in cells for one in cell.outcomes if one.left)
    lines.append(
        "- Asked at the moment of the end, a node still held a session, strategy or pipe after "
        f"{left[True]} of the attempts at pairs that joined, and {left[False]} of the others (where a peer "
        "hears of the end later, and takes a moment to wind up)."
    )
    return [
        "\n".join(lines),
        NOT_POSSIBLE.rstrip(),
    ]


def _matrix(cells: list[Cell]) -> str:
    kinds = [kind for kind in KINDS if any(kind in (cell.caller, cell.callee) for cell in cells)]
    rows = [["caller \\ callee", *kinds], ["---"] * (len(kinds) + 1)]
    known = {(cell.caller, cell.callee): cell for cell in cells}
    for caller in kinds:
        found = (known.get((caller, callee)) for callee in kinds)
        rows.append([caller, *("" if cell is None else _verdict(cell) for cell in found)])
    return _table(rows)


def _verdict(cell: Cell) -> str:
    if not cell.times:
        return "**fails**" if cell.expected else "-"
    share = "" if cell.joined else f" {len(cell.times)}/{len(cell.outcomes)}"
    return f"{cell.winner} {quantile(cell.times, 0.5) * 1e3:.0f}{share}"


def _failures(cells: list[Cell]) -> list[str]:
    failed = [cell for cell in cells if cell.wanting]
    if not failed:
        return ["In ms, median; a dash: not possible, and not joined. Nothing that is possible failed."]
    lines = ["In ms, median; a dash: not possible, and not joined. What should have joined and did not:"]
    for cell in failed:
        one = next(one for one in cell.outcomes if not one.joined)
        lines.append(f"- {cell.caller} to {cell.callee}, after {one.seconds:.1f} s: {_told(one)}")
    return [lines[0], "\n".join(lines[1:])]


def _told(outcome: Outcome) -> str:
    sentence = outcome.error.partition(" answered, ")[2] or outcome.error
    return "; ".join([sentence, *(f"*{cause}*" for cause in outcome.causes)])


def _phases(cells: list[Cell]) -> list[str]:
    """Milestones per winner and transport, medians over all attempts."""
    found: dict[tuple[str, str, str], list[dict[str, float]]] = defaultdict(list)
    for one in (one for cell in cells for one in cell.outcomes if one.joined):
        found[one.strategy, one.transport, one.kind].append(milestones(one))
    rows = [["winner", "attempts", *MILESTONES], ["---"] * (len(MILESTONES) + 2)]
    for key, values in sorted(found.items()):
        medians = []
        for name in MILESTONES:
            times = [value[name] for value in values if name in value]
            medians.append(f"{statistics.median(times) * 1e3:.0f}" if times else "")
        rows.append([" ".join(key), str(len(values)), *medians])
    return [
        MILESTONES_ARE.rstrip(),
        _table(rows),
    ]


def _beside(cells: list[Cell], others: list[Cell]) -> list[str]:
    ours = {(cell.caller, cell.callee, cell.relay): cell for cell in cells}
    others = [cell for cell in others if (cell.caller, cell.callee, cell.relay) in ours]
    lines = []
    for mode in (mode for mode in MODES if any(cell.relay is mode for cell in others)):
        theirs = [cell for cell in others if cell.relay is mode]
        same = [ours[cell.caller, cell.callee, mode] for cell in theirs]
        both = [pair for pair in zip(same, theirs, strict=True) if pair[0].joined and pair[1].joined]
        medians = [
            statistics.median(quantile(one.times, 0.5) for one in side) for side in zip(*both, strict=True)
        ]
        beside = (
            "; those that both join, in {:.2f} s and {:.2f} s at the median".format(*medians) if both else ""
        )
        lines.append(
            f"- {MODES[mode]}: {sum(cell.joined for cell in same)} of {len(same)} pairs by warpgate, "
            f"{sum(cell.joined for cell in theirs)} by aioice{beside}."
        )
    rows = [["caller", "callee", "relay", "warpgate", "aioice"], ["---"] * 5]
    for cell in others:
        pair = (ours[cell.caller, cell.callee, cell.relay], cell)
        times = [f"{quantile(one.times, 0.5) * 1e3:.0f}" if one.times else "-" for one in pair]
        rows.append([cell.caller, cell.callee, "yes" if cell.relay else "no", *times])
    return [ICE.rstrip(), "\n".join(lines), _table(rows)]


def _percentiles(cells: list[Cell]) -> str:
    rows = [["caller", "callee", "relay", "joined", "winner", "p50", "p95", "p99"], ["---"] * 8]
    for cell in cells:
        times = [f"{quantile(cell.times, q) * 1e3:.0f}" if cell.times else "" for q in (0.5, 0.95, 0.99)]
        share = f"{len(cell.times)}/{len(cell.outcomes)}"
        relay = "yes" if cell.relay else "no"
        how = sorted({f"{one.strategy} {one.transport} {one.kind}" for one in cell.outcomes if one.joined})
        rows.append([cell.caller, cell.callee, relay, share, ", ".join(how), *times])
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# -- the picture ---------------------------------------------------------------------------------

WIDE, HIGH, SIDE, TOP = 92, 38, 178, 128  # px of a cell, and of the margins for names
FAST, SLOW = 0.1, 6.0  # s; the ends of the colour scale, DESIGN section 4
SCALE = (
    (26, 152, 80),
    (145, 207, 96),
    (254, 224, 139),
    (252, 141, 89),
)  # ColorBrewer RdYlGn, without its red
RELAYED = "#4575b4"  # frame of what a relay carries
MISSED, IMPOSSIBLE, UNMEASURED = "#b2182b", "#d9d9d9", "#ffffff"


def _colour(seconds: float) -> str:
    """On a logarithmic scale."""
    share = math.log(max(seconds, FAST) / FAST) / math.log(SLOW / FAST)
    at = min(share, 0.999) * (len(SCALE) - 1)
    low, rest = int(at), at - int(at)
    mixed = (round(a + (b - a) * rest) for a, b in zip(SCALE[low], SCALE[low + 1], strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def picture(cells: list[Cell], where: dict[str, Any]) -> str:
    """docs/nat-matrix.svg: one panel per mode, a pair per cell."""
    modes = [mode for mode in MODES if any(cell.relay is mode for cell in cells)]
    panel = TOP + HIGH * len(KINDS) + 30
    width, height = SIDE + WIDE * len(KINDS) + 20, panel * len(modes) + 56
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, mode in enumerate(modes):
        chosen = {(cell.caller, cell.callee): cell for cell in cells if cell.relay is mode}
        parts.append(f'<g transform="translate(0 {number * panel})">')
        parts += _panel(chosen, MODES[mode])
        parts.append("</g>")
    parts += _legend(height - 34, where)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(cells: dict[tuple[str, str], Cell], title: str) -> list[str]:
    joined = sum(cell.joined for cell in cells.values())
    parts = [_text(14, 28, f"{title}: {joined} of {len(cells)} pairs", size=18, weight="bold")]
    for number, kind in enumerate(KINDS):
        x, y = SIDE + number * WIDE, TOP + number * HIGH
        parts.append(_text(SIDE - 8, y + HIGH / 2 + 4, kind, anchor="end"))
        place = f'transform="rotate(-28 {x + 14} {TOP - 8})"'
        parts.append(_text(x + 14, TOP - 8, kind, more=place))
    for (row, caller), (column, callee) in _grid():
        cell = cells.get((caller, callee)) or cells.get((callee, caller))
        parts += _square(SIDE + column * WIDE, TOP + row * HIGH, cell, mirrored=(caller, callee) not in cells)
    return parts


def _grid() -> Iterable[tuple[tuple[int, str], tuple[int, str]]]:
    return ((row, column) for row in enumerate(KINDS) for column in enumerate(KINDS))


def _square(x: int, y: int, cell: Cell | None, mirrored: bool) -> list[str]:
    """A cell; what was measured with the other side calling is drawn fainter, without words."""
    fill, lines, ink, frame = UNMEASURED, [], "#222222", ""
    if cell is not None and cell.times:
        middle = quantile(cell.times, 0.5)
        name = SHORT.get(cell.winner.rstrip("*"), cell.winner.rstrip("*"))
        fill, lines = _colour(middle), [name, f"{middle * 1e3:,.0f} ms"]
        if not cell.joined:
            lines[1] += f" {len(cell.times)}/{len(cell.outcomes)}"
        if any(one.kind == "relay" for one in cell.outcomes):
            frame = f' stroke="{RELAYED}" stroke-width="2"'
    elif cell is not None:
        fill, lines = (MISSED, ["fails"]) if cell.expected else (IMPOSSIBLE, ["-"])
        ink = "#ffffff" if cell.expected else "#777777"
    faint = ' opacity="0.3"' if mirrored else ""
    place = f'x="{x + 1}" y="{y + 1}" width="{WIDE - 2}" height="{HIGH - 2}" rx="3"'
    parts = [f'<rect {place} fill="{fill}"{frame}{faint}/>']
    if mirrored:
        return parts
    first = y + HIGH / 2 + 4 - 7 * (len(lines) - 1)
    for number, line in enumerate(lines):
        weight = "bold" if number == 0 and len(lines) > 1 else "normal"
        parts.append(_text(x + WIDE / 2, first + 14 * number, line, anchor="middle", ink=ink, weight=weight))
    return parts


def _legend(y: int, where: dict[str, Any]) -> list[str]:
    marks: list[tuple[str, str]] = [
        (_colour(seconds), f"{seconds:g} s") for seconds in (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0)
    ]
    marks += [(IMPOSSIBLE, "not possible"), (MISSED, "should have joined")]
    marks.append((UNMEASURED, "framed: relayed"))
    parts, x = [], SIDE
    for fill, label in marks:
        frame = f' stroke="{RELAYED}" stroke-width="2"' if fill == UNMEASURED else ""
        parts.append(f'<rect x="{x}" y="{y - 12}" width="20" height="14" rx="2" fill="{fill}"{frame}/>')
        parts.append(_text(x + 26, y, label))
        x += 46 + 7 * len(label)
    note = (
        f"Rows call columns; winner and median time to a proven pipe, {where['runs']} attempt(s) per pair, "
        f"lines of {where['delay'] * 1e3:.0f} ms one way, {where['date']}."
    )
    return [*parts, _text(SIDE, y + 22, note, ink="#555555")]


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    anchor: str = "start",
    ink: str = "#222222",
    weight: str = "normal",
    more: str = "",
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{ink}" '
        f'font-weight="{weight}" {more}>{escape(text)}</text>'
    )
