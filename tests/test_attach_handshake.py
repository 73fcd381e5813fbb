# SPDX-License-Identifier: GPL-2.0-or-later
"""The handshake of nbdctl attach with real servers and with hostile ones, and what Linux's driver would
then get: tests/attach-probe plays it."""

import contextlib
import os
import random
import socket
import struct
import subprocess
import threading

import pytest

import nbdwire as wire
from conftest import BUILD, MIB, SANITIZERS, complaints, needs_program, wait_until

CAN_MULTI_CONN = 1 << 8


def ask(uri, connections=1, **environment):
    return subprocess.run([BUILD / "tests/attach-probe/attach-probe", uri, str(connections)],
                          capture_output=True, text=True, timeout=wire.PATIENCE * 2, check=False,
                          stdin=subprocess.DEVNULL,
                          env=dict(os.environ, **SANITIZERS, **environment))


def probe(uri, connections=1):
    """(size, flags, minimum, maximum, connections)"""
    done = ask(uri, connections)
    assert done.returncode == 0, done.stderr
    return [int(word, 0) for word in done.stdout.split()]


def refusal(uri):
    done = ask(uri)
    assert done.returncode == 1 and not complaints(done.stderr), done.stderr
    return done.stderr


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.mark.parametrize("connections", [1, 4])
def test_our_export_is_attached_over_as_many_connections_as_wished(serve, file_disk, connections):
    server = serve(f"db={file_disk(4 * MIB)}")
    size, flags, minimum, maximum, made = probe(f"nbd+unix:///db?socket={server.socket}",
                                                connections)
    assert (size, made) == (4 * MIB, connections)
    assert flags & CAN_MULTI_CONN and minimum <= 512 and maximum == 32 * MIB


def test_a_name_with_all_that_a_uri_can_escape(serve, file_disk):
    name = "a b ü%?#&"
    server = serve(f"{name}={file_disk(4 * MIB)}")
    escaped = "".join(f"%{byte:02X}" for byte in name.encode())
    assert probe(f"nbd+unix:///{escaped}?socket={server.socket}")[0] == 4 * MIB


def test_a_name_that_the_server_does_not_have(serve, file_disk):
    server = serve(f"db={file_disk(4 * MIB)}")
    assert 'refuses "other": it has no export of that name' in refusal(
        f"nbd+unix:///other?socket={server.socket}")


@pytest.mark.parametrize("program", ["qemu-nbd", "nbdkit", "nbd-server"])
def test_other_servers(tmp_path, cleanup, file_disk, program):
    path = needs_program(program)
    disk, where, pids = file_disk(4 * MIB), tmp_path / "s", tmp_path / "pid"
    settings = tmp_path / "conf"
    settings.write_text(f"[generic]\nlistenaddr=127.0.0.1\nport={free_port()}\nunixsock={where}\n"
                        f"[db]\nexportname={disk}\n")
    how = {"qemu-nbd": ["--fork", "--persistent", "--shared=0", "-f", "raw", "-x", "db",
                        f"--pid-file={pids}", f"--socket={where}", disk],
           "nbdkit": [f"--pidfile={pids}", f"--unix={where}", "file", disk],
           "nbd-server": ["-C", settings, "-p", pids]}[program]
    subprocess.run([path, *how], check=True, timeout=wire.PATIENCE, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: where.exists() and pids.exists() and pids.read_text().strip(), "the server")
    cleanup.callback(os.kill, int(pids.read_text()), 15)
    size, flags, _, _, made = probe(f"nbd+unix:///db?socket={where}", 2)
    assert size == 4 * MIB and made == (2 if flags & CAN_MULTI_CONN else 1)


def test_nobody_listens(tmp_path):
    refused = refusal(f"nbd://127.0.0.1:{free_port()}/db")
    assert "cannot connect: Connection refused" in refused
    assert "No such file" in refusal(f"nbd+unix:///db?socket={tmp_path}/nothing")
    assert "cannot find the host" in refusal("nbd://host.invalid/db")


# Servers that mean harm


@pytest.fixture
def hostile(tmp_path, cleanup):
    """hostile(bytes): a server that greets, sends them whatever it is asked, and closes."""

    def listen(said):
        path = tmp_path / "hostile"
        listener = cleanup.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(4)

        def serve():
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                with sock:
                    sock.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3) + said)
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(4096):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        cleanup.callback(thread.join)
        return f"nbd+unix:///db?socket={path}"

    return listen


def answer(kind, payload=b"", option=7):
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(payload)) + payload


def size_of(n, flags=1):
    return answer(3, struct.pack(">HQH", 0, n, flags))


def blocks(minimum, preferred, maximum):
    return answer(3, struct.pack(">HIII", 3, minimum, preferred, maximum))


@pytest.mark.parametrize("said, sentence", [
    (b"", "closed the connection"),
    (answer(1), "did not say what size"),
    (size_of(1 << 63) + answer(1), "beyond all devices"),
    (size_of(0) + answer(1), "the export is empty"),
    (size_of(1000) + answer(1), "not a whole number of blocks"),
    (size_of(512) + blocks(0, 0, 0) + answer(1), "contradict"),
    (size_of(65536) + blocks(65536, 65536, 65536) + answer(1), "no requests below 65536"),
    (size_of(65536) + blocks(512, 512, 512) + answer(1), "no more than 512 bytes"),
    (answer(3, b"\0" * 9000), "too long"),
    (answer(0x80000006, b"a" * 8000), "it says: aaaa"),
    (answer(0x80000006, b"\xff\x1b[2J"), "it says: "),
    (answer(1, option=6), "what was not asked"),
    (answer(3, b"\0\1x") * 200, "more than an export has"),
])
def test_a_hostile_server_gets_no_further_than_a_sentence(hostile, said, sentence):
    told = refusal(hostile(said))
    assert sentence in told and "\x1b" not in told and len(told) < 1200


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_of_a_server_are_refused(hostile, seed):
    chance = random.Random(seed)
    good = size_of(1 << 20) + blocks(1, 4096, 1 << 25) + answer(1)
    said = bytearray(good)
    for _ in range(chance.randrange(1, 8)):
        said[chance.randrange(len(said))] = chance.randrange(256)
    done = ask(hostile(bytes(said)))
    assert done.returncode == 1 and not complaints(done.stderr)
