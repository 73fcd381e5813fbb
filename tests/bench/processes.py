# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes of this run: started with their parent-death signal set, ended by pid, and what
a tree of them has used.

CPU time is the kernel's process clock, in nanoseconds, over all threads that are or were.
Processes that ended and were waited for count by their parent's cutime, in clock ticks."""
import contextlib
import ctypes
import os
import pathlib
import re
import select
import signal
import subprocess
import time

from stopping import stopping

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PATIENCE = 10

libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A cell that has no figure, and why."""


def adopt_orphans():
    """Daemons that leave their parent become our children, so that they can be waited for."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _dies_with_us():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(argv, output: pathlib.Path, stdin=subprocess.DEVNULL, environment=None):
    """A process in a session of its own (Ctrl-C is for us); both outputs go to files."""
    with open(output, "wb") as out, open(errors_of(output), "wb") as err:
        return subprocess.Popen([str(word) for word in argv], stdin=stdin, stdout=out, stderr=err,
                                start_new_session=True, preexec_fn=_dies_with_us,
                                env=os.environ | (environment or {}))


def errors_of(output: pathlib.Path) -> pathlib.Path:
    return output.with_suffix(".err")


COMPLAINT = re.compile(r"error|fail|refuse|cannot|assert|denied|too ", re.I)


def complaint(output: pathlib.Path) -> str:
    """The first line in which a process complained, or else the last that it said."""
    lines = [line.strip() for path in (errors_of(output), output) if path.exists()
             for line in path.read_text(errors="replace").splitlines() if line.strip()]
    found = [line for line in lines if COMPLAINT.search(line)] or lines[-1:]
    return found[0][:200] if found else "it said nothing"


def run(*argv, limit=60) -> str:
    """A short command that must succeed; its output."""
    try:
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=limit, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(str(error)) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Failed(f"{' '.join(map(str, argv))}: {said or f'status {done.returncode}'}")
    return done.stdout.strip()


@contextlib.contextmanager
def watched(pid: int):
    """A poll object that becomes ready when that process ends."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield poll
    finally:
        os.close(descriptor)


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be waited for."""
    try:
        with watched(pid) as poll:
            return bool(poll.poll(0))
    except ProcessLookupError:
        return True


def children_of(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def tree_of(pid: int) -> list[int]:
    """That process and all below it."""
    return [pid] + [below for child in children_of(pid) for below in tree_of(child)]


def name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _waited_for_ns(pid: int) -> int:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * TICK_NS


def cpu_ns(pid: int) -> int:
    """CPU time of a tree until now.  Again, if a process was waited for meanwhile: its time
    may have moved to a parent that was already read."""
    for _ in range(100):
        tree, total = tree_of(pid), 0
        for one in tree:
            with contextlib.suppress(OSError):
                total += time.clock_gettime_ns((~one << 3) | 2) + _waited_for_ns(one)
        if tree_of(pid) == tree:
            return total
    raise Failed("the server's processes do not stand still")


def memory_kib(pids, field: str) -> int:
    """VmRSS (now) or VmHWM (at most so far) of processes, added up."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1])
    return total


def _reap(pid: int, seconds: float) -> bool:
    """Waits for a child of ours; True once it is gone."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        with watched(pid) as ended:
            if not ended.poll(seconds * 1000):
                return False
        os.waitpid(pid, os.WNOHANG)
    return True


def end(pid: int):
    """SIGTERM to a child of ours, then SIGKILL to what is left of its tree."""
    with stopping.later(), contextlib.ExitStack() as held:
        left = []
        for one in tree_of(pid):
            with contextlib.suppress(ProcessLookupError):
                left.append(os.pidfd_open(one))
                held.callback(os.close, left[-1])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        _reap(pid, PATIENCE)
        for descriptor in left:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _reap(pid, PATIENCE)
        _reap_adopted()


def _reap_adopted():
    """Orphans of an ended server that became our children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
