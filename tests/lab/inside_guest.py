# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests/test_guest.py runs in the guest: the installed appliance, with udev and modules.

Not a test of its own on any other machine: it loads modules and removes disks.
"""

import contextlib
import pathlib
import subprocess
import time

import nbd
import pytest

EXPORTS = pathlib.Path("/etc/nbd-export/exports.d")
MIB = 1 << 20
PATIENCE = 60                               # all is emulated


def run(*words, timeout=PATIENCE):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          errors="replace", timeout=timeout, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr or done.stdout}\n{journal()}"
    return done.stdout.strip()


def journal(lines=30):
    return subprocess.run(["journalctl", "--no-pager", "--output=short-monotonic",
                           f"--lines={lines}"], capture_output=True, text=True, timeout=PATIENCE,
                          check=False).stdout


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"no {what}\n{journal()}"
        time.sleep(0.1)
    return result


def show(unit, name):
    return run("systemctl", "show", "--value", f"--property={name}", unit)


def state(unit):
    return show(unit, "ActiveState")


def size_of(label):
    return int(run("nbdinfo", "--size", f"nbd://localhost/{label}"))


def connect(label):
    handle = nbd.NBD()
    handle.connect_uri(f"nbd://localhost/{label}")
    return handle


@pytest.fixture
def stack():
    with contextlib.ExitStack() as opened:
        yield opened


@pytest.fixture
def export(stack):
    """export(label, device, more): as an administrator adds one by hand."""

    def add(label, device, more="", start=True):
        EXPORTS.mkdir(parents=True, exist_ok=True)
        (EXPORTS / f"{label}.conf").write_text(f"[Export]\nDevice={device}\n{more}\n")
        stack.callback(remove, label)
        run("systemctl", "daemon-reload")
        if start:
            run("systemctl", "start", f"nbd-export@{label}.socket")
        run("systemctl", "reload-or-restart", "nbd-negotiator.service")

    def remove(label):
        run("systemctl", "stop", f"nbd-export@{label}.socket", f"nbd-export@{label}.service")
        (EXPORTS / f"{label}.conf").unlink()
        run("systemctl", "daemon-reload")

    return add


@pytest.fixture
def loop(stack):
    """loop(size): a loop device on a new file, with its unit active."""

    def make(size=64 * MIB):
        path = pathlib.Path(f"/var/tmp/{time.monotonic_ns()}")
        with path.open("wb") as backing:
            backing.truncate(size)
        stack.callback(path.unlink)
        device = run("losetup", "--find", "--show", path)
        stack.callback(run, "losetup", "--detach", device)
        run("udevadm", "settle")
        return device

    return make


def test_a_loop_device_is_bound_to_its_unit_and_served(export, loop):
    device = loop()
    export("web1", device)
    assert show("nbd-export@web1.socket", "BindsTo") == f"dev-{pathlib.Path(device).name}.device"
    assert size_of("web1") == 64 * MIB
    assert show("nbd-export@web1.service", "DevicePolicy") == "closed"


def test_locked_memory_is_not_limited(export, loop):
    export("web1", loop())
    size_of("web1")
    limits = pathlib.Path(f"/proc/{show('nbd-export@web1.service', 'MainPID')}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max locked memory"))
    assert line.split()[3] == "unlimited"


def test_a_dm_device_is_served(export, loop, stack):
    device = loop()
    run("dmsetup", "create", "test-1", "--table", f"0 {64 * MIB // 512} linear {device} 0")
    stack.callback(run, "dmsetup", "remove", "test-1")
    run("udevadm", "settle")
    export("dm", "/dev/mapper/test-1")
    handle = connect("dm")
    handle.pwrite(b"x" * 4096, 8192)
    handle.flush()
    handle.shutdown()
    with open(device, "rb") as disk:
        disk.seek(8192)
        assert disk.read(4096) == b"x" * 4096


def test_nbd_client_has_a_file_system_on_it(export, loop, stack):
    export("web1", loop(128 * MIB))
    run("modprobe", "nbd")
    run("nbd-client", "-N", "web1", "localhost", "/dev/nbd0")
    stack.callback(run, "nbd-client", "-d", "/dev/nbd0")
    run("mkfs.ext4", "-q", "/dev/nbd0")
    run("mount", "/dev/nbd0", "/mnt")
    stack.callback(run, "umount", "/mnt")
    run("fio", "--name=x", "--directory=/mnt", "--size=4M", "--rw=randwrite", "--bs=16k",
        "--verify=crc32c", "--do_verify=1", "--end_fsync=1")


# Disks that come and go -----------------------------------------------------------


def test_a_disk_that_appears_late_goes_and_comes_back(export, stack):
    def unload():
        run("udevadm", "settle")
        run("modprobe", "-r", "scsi_debug")

    stack.callback(unload)                  # after the export has gone
    export("late", "/dev/sda", start=False)
    assert state("nbd-export@late.socket") == "inactive"

    run("modprobe", "scsi_debug", "dev_size_mb=32")
    wait_for(lambda: state("nbd-export@late.socket") == "active", "socket for the new disk")
    assert size_of("late") == 32 * MIB

    handle = connect("late")
    handle.pwrite(b"y" * 4096, 0)
    pathlib.Path("/sys/block/sda/device/delete").write_text("1")
    wait_for(lambda: state("nbd-export@late.socket") == "inactive", "end of the socket")
    wait_for(lambda: state("nbd-export@late.service") in ("inactive", "failed"),
             "end of the service")
    with pytest.raises(nbd.Error):
        for _ in range(3):
            handle.pread(4096, 0)

    host = next(pathlib.Path("/sys/bus/pseudo/drivers/scsi_debug/adapter0").glob("host*")).name
    pathlib.Path(f"/sys/class/scsi_host/{host}/scan").write_text("- - -")
    wait_for(lambda: state("nbd-export@late.socket") == "active", "socket for the disk's return")
    assert size_of("late") == 32 * MIB


# Limits of one unit, which its neighbour does not feel -----------------------------


def seconds_to_read(label, size):
    handle = connect(label)
    start = time.monotonic()
    for offset in range(0, size, MIB):
        handle.pread(MIB, offset)
    taken = time.monotonic() - start
    handle.shutdown()
    return taken


def limit(label, *properties):
    run("systemctl", "set-property", "--runtime", f"nbd-export@{label}.service", *properties)


@pytest.fixture
def pair(export, loop):
    devices = {}
    for label in ("limited", "free"):
        devices[label] = loop()
        export(label, devices[label])
        size_of(label)
    yield devices
    run("rm", "-rf", "/run/systemd/system.control/nbd-export@limited.service.d")


def test_io_bandwidth_is_limited_for_one_unit_alone(pair):
    limit("limited", f"IOReadBandwidthMax={pair['limited']} 2M")
    assert seconds_to_read("limited", 8 * MIB) > 3
    assert seconds_to_read("free", 8 * MIB) < 3


def test_cpu_time_is_limited_for_one_unit_alone(pair):
    limit("limited", "CPUQuota=4%")
    free = seconds_to_read("free", 16 * MIB)
    assert seconds_to_read("limited", 16 * MIB) > 2 * free


def test_memory_is_limited_for_one_unit_alone(export):
    size = 96 * MIB
    for label in ("limited", "free"):
        path = pathlib.Path(f"/srv/{label}.img")
        run("fallocate", f"--length={size}", path)
        run("chown", "nbd-export:", path)
        export(label, path, "Direct=no\nMemory=48M")
        size_of(label)
        if label == "limited":
            limit(label, f"MemoryMax={64 * MIB}")
        # Through the page cache, which is the unit's as far as it was the first to use it.
        handle = connect(label)
        for offset in range(0, size, MIB):
            handle.pwrite(bytes(MIB), offset)
        handle.shutdown()
    assert int(show("nbd-export@limited.service", "MemoryCurrent")) <= 64 * MIB
    assert int(show("nbd-export@free.service", "MemoryCurrent")) > 80 * MIB
