# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request loop owes everybody on it: it goes on when there is something to do."""
import contextlib
import os
import select
import signal
import subprocess
import threading

import pytest

import nbdwire as wire
from test_channel import client_over, connect, start  # noqa: F401  (a fixture)

MIB = 1 << 20
ENGINES = ("io_uring", "threads")
LOOPS = [(engine, threads) for engine in ENGINES for threads in (1, 2)]


@contextlib.contextmanager
def a_second_for_each(n):
    """Against waits that something else ends late: each would take the loop's next tick."""
    def give_up(signum, frame):
        raise AssertionError(f"not over after {n} s: the loop sleeps while there is work")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(n)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("length", [64 << 10, 256 << 10, MIB, 4 * MIB])
def test_a_reply_larger_than_the_socket_takes_goes_on_as_the_client_reads(
        start, engine, length):  # noqa: F811
    export = start(Engine=engine)
    sock, _ = connect(export).client()
    client = client_over(sock)
    with a_second_for_each(20):
        for _ in range(20):
            assert len(client.read(0, length, wire.CMD_FLAG_DF)) == length
    sock.close()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", [wire.SIMPLE, wire.EXTENDED])
def test_a_reply_of_hundreds_of_parts_goes_on_until_all_are_sent(serve, file_disk, engine, mode):
    path = file_disk(32 * MIB)
    with open(path, "r+b") as file:
        for at in range(0, 32 * MIB, 8192):
            file.seek(at)
            file.write(b"x" * 4096)
        os.fsync(file.fileno())
    client = serve(path, engine=engine).client("", mode)
    with a_second_for_each(20):
        for _ in range(3):
            assert client.read(0, 32 * MIB).count(b"x") == 16 * MIB


@pytest.mark.parametrize("engine", ENGINES)
def test_a_long_request_whose_steps_end_at_once_lets_others_in_between(
        serve, tmpfs_disk, engine):
    size = 256 * MIB
    path = tmpfs_disk(size, b"x" * size)
    server = serve(path, engine=engine, direct="no", threads=1)
    long, other = server.client(), server.client()
    cookie = long.send_request(wire.CMD_WRITE_ZEROES, 0, size, wire.CMD_FLAG_NO_HOLE)
    reads = 0
    while not select.select([long.sock], [], [], 0)[0]:
        other.read(size - 4096, 4096)
        reads += 1
    assert reads >= 25, f"the other got {reads} replies in all that time"
    long.wait(cookie).check()
    assert long.read(0, MIB) == bytes(MIB)


class FullDisk:
    """A loop device on a tmpfs too small for it: what is written cannot be written back."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", self.folder], check=True)
        try:
            backing = self.folder / "backing"
            backing.touch()
            os.truncate(backing, 64 * MIB)
            self.path = subprocess.run(["losetup", "--find", "--show", backing], check=True,
                                       capture_output=True, text=True).stdout.strip()
        except BaseException:
            self.__exit__()
            raise
        return self.path

    def __exit__(self, *exc):
        if hasattr(self, "path"):
            subprocess.run(["losetup", "--detach", self.path], check=True)
        subprocess.run(["umount", "--lazy", self.folder], check=True)


@pytest.mark.parametrize("engine,threads", LOOPS)
def test_of_two_who_flush_at_once_neither_is_told_that_lost_data_is_safe(
        serve, tmp_path, cleanup, counts, engine, threads):
    for i in range(counts(4, 40)):
        folder = tmp_path / str(i)
        folder.mkdir()
        path = cleanup.enter_context(FullDisk(folder))
        server = serve(path, direct="no", engine=engine, threads=threads)
        server.lossy, server.status = True, 1
        clients = [server.client(), server.client()]
        for at in range(0, 16 * MIB, 2 * MIB):
            for k, client in enumerate(clients):
                client.write(at + k * MIB, b"a" * MIB)
        errors = flush_at_once(clients)
        assert 0 not in errors, f"round {i}: {errors}"
        server.stop()


def flush_at_once(clients):
    line = threading.Barrier(len(clients))
    errors = [None] * len(clients)

    def flush(i):
        line.wait()
        errors[i] = clients[i].error(wire.CMD_FLUSH)

    threads = [threading.Thread(target=flush, args=(i,)) for i in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
