# SPDX-License-Identifier: GPL-2.0-or-later
"""A moment without memory: clients wait, and are not closed."""

import pytest
from conftest import BUILD, wait_until
from test_abuse import is_sanitized
from test_channel import client_over, connect, start  # noqa: F401

ENGINES = ("io_uring", "threads")


class Memory:
    """There is none for an export's request loops while `gone` exists: see tests/no-memory."""

    def __init__(self, folder):
        self.gone = folder / "no-memory"
        self.met = folder / "no-memory.met"
        self.env = {
            "LD_PRELOAD": str(BUILD / "tests/no-memory/no-memory.so"),
            "NBD_EXPORT_NO_MEMORY": str(self.gone),
        }

    def is_missed(self):
        wait_until(self.met.exists, "somebody who wants memory")


@pytest.fixture
def memory(tmp_path, programs):
    if is_sanitized(programs.export):
        pytest.skip("a sanitizer has a malloc of its own")
    return Memory(tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_request_that_there_is_no_memory_for_waits(start, memory, engine):  # noqa: F811
    export = start(env=memory.env, Engine=engine)
    client = client_over(connect(export).client()[0])
    memory.gone.touch()
    cookies = [client.send_read(i * 4096, 4096) for i in range(40)]
    memory.is_missed()
    memory.gone.unlink()
    for cookie in cookies:
        assert client.wait(cookie).check().data == bytes(4096)


def test_a_receive_that_there_is_no_memory_for_is_tried_again(start, memory):  # noqa: F811
    export = start(env=memory.env, Engine="threads")
    memory.gone.touch()
    client = client_over(connect(export).client()[0])
    memory.is_missed()
    memory.gone.unlink()
    client.write(0, b"x" * 4096)
    assert client.read(0, 4096) == b"x" * 4096


def test_a_request_that_there_is_no_memory_for_does_not_hold_up_a_stop_for_ever(
        start, memory, only_long):  # noqa: F811
    export = start(env=memory.env)
    client = client_over(connect(export).client()[0])
    memory.gone.touch()
    client.send_read(0, 4096)
    memory.is_missed()
    assert export.stop() == 0
    assert client.closed()
