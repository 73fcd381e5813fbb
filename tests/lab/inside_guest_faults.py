# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest.py runs in the guest: devices that come, go and hang, and clients over
vsock.

Not a test of its own on any other machine: it loads modules and removes disks.
"""

import threading
import time

import nbd
import pytest

pytest.register_assert_rewrite("guest")
from guest import (  # noqa: E402
    MIB, PATIENCE, Load, ask, connect, events, run, show, shown, size_of, state, wait_for)

pytest_plugins = ["guest"]


@pytest.mark.parametrize("kind", ["loop", "dm"])
def test_fio_reads_back_what_it_wrote(export, loop, linear, kind):
    export("web1", loop() if kind == "loop" else linear("test-1")[0])
    status, said = Load("web1", "--size=4M", "--offset=13M").end()
    assert status == 0, said


# Devices that come and go ---------------------------------------------------------


def test_a_disk_that_appears_late_is_served_from_then_on(export, scsi):
    export("late", scsi.path, start=False)
    assert state("nbd-export@late.socket") == "inactive"
    assert shown("late", "state") == "no-device"
    scsi()
    wait_for(lambda: state("nbd-export@late.socket") == "active", "socket for the new disk")
    assert size_of("late") == scsi.size


def test_a_disk_taken_away_under_load_is_told_once_and_served_again_when_it_is_back(export, scsi):
    disk = scsi()
    export("unplugged", disk.path)
    watcher = connect("unplugged")
    watcher.pwrite(b"kept" * 1024, 0, nbd.CMD_FLAG_FUA)
    loads = [Load("unplugged", "--size=8M", f"--offset={n}M", "--time_based", "--runtime=600")
             for n in (8, 16)]
    wait_for(lambda: shown("unplugged", "clients") == 3, "clients")
    wait_for(lambda: shown("unplugged", "written") > 2 * MIB, "load")
    disk.take_away()
    for load in loads:                      # errors, and no hanging
        status, said = load.end()
        assert status != 0, said
    with pytest.raises(nbd.Error):
        for _ in range(3):
            watcher.pread(4096, 0)
    for unit in ("nbd-export@unplugged.socket", "nbd-export@unplugged.service"):
        wait_for(lambda unit=unit: state(unit) == "inactive", f"end of {unit}")
    assert shown("unplugged", "state") == "no-device"
    assert events("flush-failed", "unplugged") == []
    assert len(events("device-gone", "unplugged")) == 1, events("device-gone", "unplugged")
    assert ask("nbdinfo", "nbd://localhost/unplugged").returncode != 0
    assert show("nbd-export@unplugged.service", "Result") == "success"

    disk.bring_back()
    # What failed to start is not tried again for a second.
    wait_for(lambda: ask("nbdinfo", "nbd://localhost/unplugged").returncode == 0, "disk's return")
    assert connect("unplugged").pread(4096, 0) == b"kept" * 1024
    assert shown("unplugged", "state") == "serving"
    assert len(events("device-gone", "unplugged")) == 1


# Devices that hang ----------------------------------------------------------------


def test_a_stuck_device_is_a_warning_and_a_status_and_no_end(export, linear, loop, stack, drop_in):
    path, _ = linear("stuck")
    unit = "nbd-export@stuck.service"
    drop_in(unit, "[Service]\nWatchdogSec=5\n")
    export("stuck", path)
    export("web2", loop())
    handle = connect("stuck")
    handle.pwrite(b"a" * 4096, 0)
    process = show(unit, "MainPID")
    done = []
    other = connect("stuck")
    clients = [threading.Thread(target=lambda what=what: done.append(what()), daemon=True)
               for what in (lambda: handle.pread(4096, 0),
                            lambda: other.pwrite(b"b" * 4096, 4096))]

    run("dmsetup", "suspend", "stuck")
    stack.callback(run, "dmsetup", "resume", "stuck")
    for thread in clients:
        thread.start()
    wait_for(lambda: "has not answered" in show(unit, "StatusText"), "word about the device")
    assert len(events("device-stuck", "stuck")) == 1
    assert "stuck: I/O of /dev/mapper/stuck does not end" in ask("nbdctl", "status").stderr
    assert size_of("web2") == 64 * MIB
    fed = show(unit, "WatchdogTimestampMonotonic")
    wait_for(lambda: show(unit, "WatchdogTimestampMonotonic") != fed, "food for the watchdog")
    assert done == []

    run("dmsetup", "resume", "stuck")
    for thread in clients:
        thread.join(PATIENCE)
    assert sorted(done, key=str) == sorted([None, b"a" * 4096], key=str)
    wait_for(lambda: "has not answered" not in show(unit, "StatusText"), "end of the status")
    assert len(events("device-unstuck", "stuck")) == 1
    assert len(events("device-stuck", "stuck")) == 1
    assert (show(unit, "MainPID"), show(unit, "NRestarts")) == (process, "0")


def test_a_stop_takes_as_long_as_the_device_and_longer_than_systemd_would_wait(
        export, linear, stack, drop_in):
    path, _ = linear("slow")
    unit = "nbd-export@slow.service"
    drop_in(unit, "[Service]\nTimeoutStopSec=5\n")
    export("slow", path)
    handle = connect("slow")
    handle.pwrite(b"a" * 4096, 0)
    run("dmsetup", "suspend", "slow")
    stack.callback(run, "dmsetup", "resume", "slow")
    done = []
    writer = threading.Thread(target=lambda: done.append(handle.pwrite(b"b" * 4096, 4096)),
                              daemon=True)
    writer.start()
    wait_for(lambda: shown("slow", "requests") == 2, "the second write")
    began = time.monotonic()
    run("systemctl", "stop", "--no-block", unit)
    wait_for(lambda: time.monotonic() - began > 15, "three times the time")
    assert (state(unit), done) == ("deactivating", [])
    run("dmsetup", "resume", "slow")
    wait_for(lambda: state(unit) == "inactive", "end of the service")
    writer.join(PATIENCE)
    assert done == [None]                   # what was in flight has been answered
    assert show(unit, "Result") == "success"
    with open(path, "rb") as disk:
        assert disk.read(8192) == b"a" * 4096 + b"b" * 4096


# Clients of another kind ----------------------------------------------------------


def test_clients_come_by_vsock_too(export, loop, stack, drop_in):
    run("modprobe", "vsock_loopback")
    stack.callback(run, "systemctl", "restart", "nbd-negotiator.socket")    # as it was
    stack.callback(run, "systemctl", "stop", "nbd-negotiator.service")
    drop_in("nbd-negotiator.socket", "[Socket]\nListenStream=vsock::10809\n")
    run("systemctl", "stop", "nbd-negotiator.service")
    run("systemctl", "restart", "nbd-negotiator.socket")
    export("web1", loop(), "Allow=vsock")
    export("web2", loop())
    handle = nbd.NBD()
    handle.set_export_name("web1")
    handle.connect_vsock(1, 10809)
    assert handle.get_size() == 64 * MIB
    handle.pwrite(b"v" * 4096, 0)
    handle.flush()
    assert handle.pread(4096, 0) == b"v" * 4096
    assert run("nbdctl", "clients", "web1", "--noheadings", "-o", "ADDRESS").startswith("vsock:1:")
    del handle                              # a shutdown() may find no end of file on a vsock
    wait_for(lambda: shown("web1", "clients") == 0, "end of the client")

    refused = nbd.NBD()
    refused.set_export_name("web2")         # for this machine's own addresses only
    with pytest.raises(nbd.Error):
        refused.connect_vsock(1, 10809)
    with pytest.raises(nbd.Error):
        connect("web1")
