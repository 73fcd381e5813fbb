# SPDX-License-Identifier: GPL-2.0-or-later
"""What was reached under a workload, beside the floor and the aim of its goal."""
import dataclasses
import statistics

from measuring import Result
from servers import BY_NAME
from workloads import Workload


@dataclasses.dataclass
class Check:
    """One figure against its floor and aim; None: not measured."""
    what: str
    reached: float | None
    floor: float
    aim: float
    lower: bool = False         # lower is better

    def holds(self, bound: float) -> bool:
        if self.reached is None:
            return False
        return self.reached <= bound if self.lower else self.reached >= bound

    def __str__(self):
        reached = "–" if self.reached is None else f"{self.reached:.2f}"
        return f"{self.what} {reached} of {self.floor:g}"


@dataclasses.dataclass
class Summary:
    """Ratios of the subject to the best rival and others; above 1 is better, but for CPU."""
    workload: Workload
    best: str = ""                      # the best rival's name
    rate: float | None = None
    rate_range: tuple | None = None     # of the rounds' own ratios
    cpu: float | None = None            # of the best rival's CPU
    cpu_least: float | None = None      # of the least CPU of any rival
    cpu_least_of: str = ""
    null: float | None = None
    direct: float | None = None
    checks: list[Check] = dataclasses.field(default_factory=list)
    misses: list[str] = dataclasses.field(default_factory=list)     # what the aim lacks

    @property
    def verdict(self) -> str:
        if not self.checks:
            return "shown"
        if all(check.reached is None for check in self.checks):
            return "not measured"
        below = [check for check in self.checks if not check.holds(check.floor)]
        if below:
            return "below floor: " + ", ".join(map(str, below))
        if not self.misses and all(check.holds(check.aim) for check in self.checks):
            return "aim reached"
        return "floor reached"


def counts_as_best(work: Workload, name: str) -> bool:
    """Peers that write to the page cache do not count where only writes are measured."""
    return not (work.op == "write" and BY_NAME[name].cached)


def ratio(work: Workload, ours, other) -> float | None:
    if not ours or not other:
        return None
    return other / ours if work.lower_is_better else ours / other


def paired_range(work: Workload, ours: Result, other: Result) -> tuple | None:
    pairs = [ratio(work, a.rate, b.rate) for a, b in zip(ours.samples, other.samples) if a and b]
    pairs = [pair for pair in pairs if pair]
    return (min(pairs), max(pairs)) if pairs else None


def cpu_figure(work: Workload) -> str:
    return "cpu_ms_per_gib" if work.by_volume else "cpu_us_per_request"


def compare(work: Workload, results: dict[str, Result]) -> Summary:
    said = Summary(work)
    ours = results.get(work.subject, Result())
    rates = {name: result.median("rate") for name, result in results.items()}
    rivals = [n for n in work.rivals if rates.get(n) and counts_as_best(work, n)]
    mine = rates.get(work.subject)
    if rivals:
        said.best = (min if work.lower_is_better else max)(rivals, key=lambda n: rates[n])
        said.rate = ratio(work, mine, rates[said.best])
        said.rate_range = paired_range(work, ours, results[said.best])
    said.null = ratio(work, mine, rates.get("null"))
    said.direct = ratio(work, mine, rates.get("direct"))
    compare_cpu(said, results, rivals)
    judge(said, results)
    return said


def compare_cpu(said: Summary, results: dict[str, Result], rivals: list[str]):
    figure = cpu_figure(said.workload)
    used = {name: results[name].median(figure) for name in rivals}
    used = {name: value for name, value in used.items() if value}
    mine = results.get(said.workload.subject, Result()).median(figure)
    if not mine or not used:
        return
    if said.best in used:
        said.cpu = mine / used[said.best]
    said.cpu_least_of = min(used, key=used.get)
    said.cpu_least = mine / used[said.cpu_least_of]


def judge(said: Summary, results: dict[str, Result]):
    """Fills in the checks of the goal, and what its aim asks beyond them."""
    work, goal = said.workload, said.workload.goal
    mine = results.get(work.subject, Result())
    for what, reached, bounds, lower in (
            ("×", said.rate, goal.rate, False), ("CPU", said.cpu, goal.cpu, True),
            ("of null", said.null, goal.null, False),
            (work.unit, mine.median("rate"), goal.size, True)):
        if bounds:
            said.checks.append(Check(what, reached, *bounds, lower))
    if goal.at_least in results and results[goal.at_least].figures("rate"):
        other = results[goal.at_least].median("rate")
        said.checks.append(Check(f"of {goal.at_least}", ratio(work, mine.median("rate"), other),
                                 1.0, 1.0))
    if goal.p99_lower and said.best:
        best, own = results[said.best].median("p99_us"), mine.median("p99_us")
        if not (best and own and own < best):
            said.misses.append("p99 of the best peer")
    if goal.beats_cached:
        for name in (n for n in work.rivals if BY_NAME[n].cached and n in results):
            rate = results[name].median("rate")
            if rate and (mine.median("rate") or 0) < rate:
                said.misses.append(f"the page cache of {name}")


def spread(figures: list[float]) -> tuple[float, float, float] | None:
    """Median, least and most."""
    return (statistics.median(figures), min(figures), max(figures)) if figures else None
