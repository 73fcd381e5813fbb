# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables for a terminal or as Markdown, and everything as JSON."""
import dataclasses
import os
import platform
import time

from measuring import Result
from servers import BY_NAME, SERVERS
from verdict import Summary, cpu_figure, spread
from workloads import Workload

NONE = "–"


def number(value: float | None) -> str:
    """Three significant digits, from 10,000 on with a letter: 64.4k, 2.74M, 0.35."""
    if value is None:
        return NONE
    if abs(value) < 9999.5:
        return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.3g}"
    divisor, letter = (1e3, "k") if abs(value) < 999.5e3 else (1e6, "M")
    scaled = value / divisor
    return f"{scaled:.0f}{letter}" if scaled >= 99.95 else f"{scaled:.3g}{letter}"


def times(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def table(head: list[str], rows: list[list[str]], markdown: bool) -> str:
    """The first column to the left, the others to the right; the last one too if it is words."""
    if markdown:
        lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) if i == 0 or i == len(head) - 1 else cell.rjust(w)
                  for i, (cell, w) in enumerate(zip(line, widths))).rstrip()
        for line in [head, *rows])


def server_row(work: Workload, name: str, result: Result, best: dict) -> list[str]:
    """best: the rates that ratios are taken to, by column."""
    mark = "*" if BY_NAME[name].cached and work.op in ("write", "mix") else ""
    rates = spread(result.figures("rate"))
    if not rates:
        return [name + mark] + [NONE] * 10
    ratios = [times(rates[0] / to if to else None) for to in best.values()]
    peak = max(result.figures("rss_kib"), default=None)
    tree = result.median("tree_rate")
    shown = number(rates[0]) + (f" (tree {number(tree)})" if tree and name == work.subject else "")
    return [name + mark, shown, number(rates[1]), number(rates[2]), *ratios,
            number(result.median("p50_us")), number(result.median("p99_us")),
            number(result.median(cpu_figure(work))),
            number(peak / 1024 if peak else None)]


def workload_table(said: Summary, results: dict[str, Result], markdown: bool) -> str:
    work = said.workload
    rates = {name: result.median("rate") for name, result in results.items()}
    best = {"best": rates.get(said.best), "null": rates.get("null"),
            "direct": rates.get("direct")}
    cpu = "CPU ms/GiB" if work.by_volume else "CPU µs"
    head = ["server", work.unit, "min", "max", "× best", "× null", "× direct", "p50 µs", "p99 µs",
            cpu, "RSS MiB"]
    rows = [server_row(work, name, result, best) for name, result in results.items()]
    why = [f"{name}: {result.why_not}" for name, result in results.items() if result.why_not]
    title = f"### {work.name}: {work.title}" if markdown else f"{work.name}: {work.title}"
    parts = [title, table(head, rows, markdown)]
    parts += ["\n".join(f"- {line}" for line in why)] if why else []
    return ("\n\n" if markdown else "\n").join(parts)


def remarks(results) -> list[str]:
    """What servers did that is odd but spoils no figure; each remark once."""
    rows = {}
    for by_server in results.values():
        for name, result in by_server.items():
            if result.remark:
                rows[f"{name} {result.remark}"] = rows.get(f"{name} {result.remark}", 0) + 1
    return [f"{remark} (workloads: {count})" for remark, count in rows.items()]


def bound(said: Summary, which: str) -> str:
    return ", ".join(f"{check.what} {getattr(check, which):g}" for check in said.checks) or NONE


def summary_table(summaries: list[Summary], results, markdown: bool) -> str:
    head = ["workload", "ours", "best peer", "×", "range", "of null", "of direct", "CPU ×",
            "least CPU ×", "floor", "aim", "verdict"]
    rows = []
    for said in summaries:
        work = said.workload
        rate = results[work.name].get(work.subject, Result()).median("rate")
        low_high = "–".join(times(x) for x in said.rate_range) if said.rate_range else NONE
        verdict = said.verdict
        if verdict == "floor reached" and said.misses:
            verdict += f" (aim: not {', '.join(said.misses)})"
        rows.append([work.name, f"{number(rate)} {work.unit}" if rate else NONE,
                     said.best or NONE, times(said.rate), low_high, times(said.null),
                     times(said.direct), times(said.cpu),
                     f"{times(said.cpu_least)} {said.cpu_least_of}".strip(),
                     bound(said, "floor"), bound(said, "aim"), verdict])
    return table(head, rows, markdown)


NOTES = (
    "×: ours by the best peer of this run, medians; range: the rounds' own ratios.",
    "CPU: of the server's whole process tree, by request (µs) or by GiB (ms); CPU ×: of the best "
    "peer's; least CPU ×: of the peer that uses least. The kernel's loop workers are charged to "
    "nobody.",
    "RSS: the most at any time, VmHWM added up over the tree. rss-1000 and rss-idle: of the "
    "export's process; for peers, of the tree.",
    "* writes end in the page cache: not counted as best peer where only writes are measured.",
    "null: a server without a device; direct: fio with io_uring on the device, no NBD.",
)


def machine() -> dict:
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as opened:
        for line in opened:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"kernel": platform.release(), "cpu": model, "cpus": len(os.sched_getaffinity(0)),
            "date": time.strftime("%Y-%m-%d"),
            "versions": sorted({s.version_here() for s in SERVERS} - {""})}


def text(run, summaries, results, markdown: bool, took: float) -> str:
    host = machine()
    told = (f"{host['date']}, Linux {host['kernel']}, {host['cpus']} CPUs ({host['cpu']}); "
            f"{', '.join(host['versions'])}; up to {run.rounds} rounds of {run.seconds:g} s a "
            f"cell, {took:.0f} s in all.")
    parts = [told]
    parts += [workload_table(said, results[said.workload.name], markdown) for said in summaries]
    parts.append(("### " if markdown else "") + "Summary")
    parts.append(summary_table(summaries, results, markdown))
    parts.append("\n".join("- " + note for note in [*NOTES, *remarks(results)]))
    return "\n\n".join(parts) + "\n"


def as_json(run, summaries, results, took: float) -> dict:
    """Nothing left out: every sample of every round."""
    def cell(work, result):
        return {"median": result.median("rate"), "why_not": result.why_not,
                "remark": result.remark,
                "cpu": result.median(cpu_figure(work)), "p50_us": result.median("p50_us"),
                "p99_us": result.median("p99_us"),
                "rounds": [dataclasses.asdict(s) if s else None for s in result.samples]}

    def workload(said):
        work = said.workload
        fields = {f.name: getattr(said, f.name) for f in dataclasses.fields(said)
                  if f.name not in ("workload", "checks")}
        return {"name": work.name, "title": work.title, "unit": work.unit,
                "cpu_unit": "ms per GiB" if work.by_volume else "us per request",
                **fields, "verdict": said.verdict,
                "checks": [dataclasses.asdict(check) for check in said.checks],
                "servers": {name: cell(work, result)
                            for name, result in results[work.name].items()}}

    return {"machine": machine(), "seconds": run.seconds, "rounds": run.rounds, "took": took,
            "settings": run.build.settings, "workloads": [workload(said) for said in summaries]}
