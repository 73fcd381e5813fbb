# SPDX-License-Identifier: GPL-2.0-or-later
"""nbdctl and a running `nbdctl serve`: the real daemons."""

import calendar
import os
import subprocess
import time

import pytest

from conftest import needs_root, wait_until
from nbdctl import ctl, disk, served, short_folder  # noqa: F401, fixtures
from nbdctl import Ctl
from nbdwire import CMD_WRITE, EXTENDED, PATIENCE, SIMPLE, Closed, request_header


def test_list_show_and_status_tell_of_what_serves(served):
    server, ctl = served()
    with server.client("web1") as client:
        client.write(0, b"x" * 4096)
        rows = {row["label"]: row for row in ctl.json("list", "-o", "+written,since")}
        assert rows["web1"]["state"] == "serving" and rows["web1"]["clients"] == 1
        assert rows["web1"]["written"] == 4096 and rows["db"]["clients"] == 0
        (shown,) = ctl.json("show", "web1")
        assert shown["sector"] and shown["engine"] in ("io_uring", "threads")
        assert shown["clients"] == 1 and shown["written"] == 4096
        (status,) = ctl.json("status")
    assert status["negotiator"] == "running" and status["running"] == 2 and status["clients"] == 1


@pytest.mark.parametrize("mode, word", [(SIMPLE, "simple"), (EXTENDED, "extended")])
def test_clients_tells_of_real_ones(served, mode, word):
    server, ctl = served()
    with server.client("db", mode=mode):
        (row,) = ctl.json("clients")
    assert row["export"] == "db" and row["mode"] == word and row["address"].startswith("unix:")
    since = calendar.timegm(time.strptime(row["since"], "%Y-%m-%dT%H:%M:%SZ"))
    assert abs(since - time.time()) < 60


def test_a_kicked_client_is_gone_and_may_come_again(served):
    server, ctl = served()
    client = server.client("web1")
    (row,) = ctl.json("clients", "web1")
    ctl("kick", "web1", str(row["connection"]))
    with pytest.raises((Closed, OSError)):
        client.read(0, 512)
    wait_until(lambda: ctl.json("clients") == [], "the client to be gone")
    server.client("web1").read(0, 512)


def test_drain_closes_clients_and_resume_lets_them_in(served):
    server, ctl = served()
    server.client("web1")
    assert "drained web1" in ctl("drain", "web1").stdout
    assert {row["label"]: row["state"] for row in ctl.json("list")} == {"web1": "drained",
                                                                        "db": "serving"}
    with pytest.raises(Exception):
        server.client("web1")
    server.client("db").read(0, 512)
    assert "serves again" in ctl("resume", "web1").stdout
    server.client("web1").read(0, 512)


def test_a_remove_that_does_not_drain_in_time_leaves_clients_as_they_were(served):
    server, ctl = served()
    client = server.client("web1", mode=SIMPLE)
    whole = request_header(client.mode, CMD_WRITE, 0, 8192) + b"w" * 8192
    client.send(whole[:5000])
    words = ["remove", "web1", f"--exports={ctl.exports}", f"--runtime={ctl.runtime}", "--drain=1"]
    done = subprocess.run([ctl.program, *words], capture_output=True, text=True, timeout=60,
                          env=ctl.env)
    (ctl.exports / ".lock").unlink()
    assert done.returncode == 1 and "stays as it was" in done.stderr
    assert {row["state"] for row in ctl.json("list")} == {"serving"}
    client.send(whole[5000:])
    assert client.recv(16)[4:8] == bytes(4), "no error"
    server.client("web1").read(0, 512)


def test_who_runs_serve_may_change_what_it_serves_without_being_root(ctl, disk, short_folder):
    """Under systemd an export's own user may not: all exports are that user."""
    needs_root()
    short_folder.chmod(0o777)
    disk.parent.chmod(0o755)
    disk.chmod(0o666)
    nobody = {"user": 65534, "group": 65534, "extra_groups": [], "text": True,
              "env": dict(ctl.env, XDG_RUNTIME_DIR=str(short_folder))}
    child = subprocess.Popen([ctl.program, "serve", f"web1={disk}", "--direct=no"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, **nobody)
    try:
        uri = child.stdout.readline()
        assert uri.startswith("serving web1 at "), child.stderr.read()
        runtime = os.path.dirname(uri.strip().split("socket=")[1])
        for verb in ("drain", "resume"):
            subprocess.run([ctl.program, verb, "web1", f"--runtime={runtime}"], check=True,
                           capture_output=True, timeout=60, **nobody)
    finally:
        child.terminate()
        child.communicate(timeout=PATIENCE)
    assert child.returncode == 0


def test_reload_is_heard_by_all(served):
    server, ctl = served()
    with server.client("web1") as client:
        ctl("reload")
        client.read(0, 512)
    server.wait_for_log("nbd-negotiator: settings were read again")


def test_add_and_remove_are_not_for_serve(served, disk):
    _, ctl = served()
    for words in (["add", "new", disk], ["remove", "web1"]):
        done = subprocess.run([ctl.program, *words], capture_output=True, text=True, timeout=60,
                              env=dict(ctl.env, NBD_EXPORT_RUNTIME=str(ctl.runtime)))
        assert done.returncode == 1 and "serves what it was started with" in done.stderr


def test_the_environment_tells_where_serve_is(served):
    _, ctl = served()
    done = subprocess.run([ctl.program, "list", "--noheadings", "-olabel,state"], text=True,
                          env=dict(ctl.env, NBD_EXPORT_RUNTIME=str(ctl.runtime)),
                          capture_output=True, timeout=60)
    assert done.stdout.split() == ["db", "serving", "web1", "serving"]


def test_an_idle_export_of_serve_ends_and_comes_back_with_its_next_client(serve, programs, disk,
                                                                         short_folder):
    folder = short_folder / "conf"
    folder.mkdir()
    (folder / "web1.conf").write_text(f"[Export]\nDevice={disk}\nIdleTimeout=1\n")
    server = serve(config=folder)
    server.lossy = True
    ctl = Ctl(programs.nbdctl, short_folder)
    (ctl.runtime,) = server.runtime.iterdir()
    ctl.exports = ctl.runtime / "exports"
    for _ in range(2):
        server.client("web1").close()
        wait_until(lambda: server.pids("nbd-export") == [], "the export to end")
        assert ctl.json("list")[0]["state"] == "inactive"
    server.client("web1").read(0, 512)
    assert ctl.json("list")[0]["state"] == "serving"
    assert "exit code" not in server.log()
