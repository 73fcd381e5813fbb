# SPDX-License-Identifier: GPL-2.0-or-later
"""The rounds: in each, every workload; under each workload every server, in an order that is
rotated from round to round.  A server is started for one cell and ended after it."""
import dataclasses
import statistics
import sys
import time

from clients import CLIENTS, Cell, Sample
from devices import Devices
from processes import Failed, complaint, ended
from servers import BY_NAME, Build, Place, free_port, running
from workloads import Workload


@dataclasses.dataclass
class Result:
    """What one server reached under one workload: a sample or None for each round."""
    samples: list[Sample | None] = dataclasses.field(default_factory=list)
    why_not: str = ""           # set: there will be no more samples
    remark: str = ""

    def figures(self, name: str) -> list[float]:
        found = [getattr(sample, name) for sample in self.samples if sample]
        return [figure for figure in found if figure is not None]

    def median(self, name: str) -> float | None:
        figures = self.figures(name)
        return statistics.median(figures) if figures else None


@dataclasses.dataclass
class Run:
    build: Build
    devices: Devices
    seconds: float
    rounds: int
    servers: frozenset          # names that were asked for
    until: float                # time.monotonic() after which no further round begins a row

    def measure(self, workloads) -> dict[str, dict[str, Result]]:
        """By workload and server."""
        results = {work.name: {name: Result() for name in work.servers if name in self.servers}
                   for work in workloads}
        for turn in range(self.rounds):
            for position, work in enumerate(workloads):
                if turn and time.monotonic() > self.until:
                    return results
                tell(f"round {turn + 1} of {self.rounds}, {position + 1} of {len(workloads)}: "
                     f"{work.name}")
                self.one_round(work, results[work.name], turn + position)
        return results

    def one_round(self, work: Workload, results: dict[str, Result], turn: int):
        names = list(results)
        start = turn % len(names) if names else 0
        for name in names[start:] + names[:start]:
            result = results[name]
            sample = None
            if not result.why_not:
                try:
                    sample = self.cell(work, name, result)
                except (Failed, OSError) as failure:
                    result.why_not = str(failure)
                    tell(f"    {name}: {failure}")
            result.samples.append(sample)

    def cell(self, work: Workload, name: str, result: Result) -> Sample:
        server = BY_NAME[name]
        client = CLIENTS[work.client if server.command else "direct"]
        if why := client.lacks(self.build):
            raise Failed(why)
        device = self.devices.get(work.device)
        device.settle()
        port = free_port() if work.transport == "tcp" else None
        place = Place(device, self.devices.folder / name, self.devices.kept / name, port,
                      self.build, work.connections)
        if not server.command:
            return client.run(Cell(work, server, place, None, self.seconds, self.devices.folder))
        with running(server, place) as pid:
            try:
                return client.run(Cell(work, server, place, pid, self.seconds, place.folder))
            finally:
                if ended(pid):
                    result.remark = f"ended when a client left: {complaint(place.output)}"


def tell(line: str):
    print(line, file=sys.stderr, flush=True)
