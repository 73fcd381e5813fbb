# SPDX-License-Identifier: GPL-2.0-or-later
"""The appliance as installed, under systemd as PID 1, in a container of scripts/lab.

One container serves all of these tests, one after the other.  What needs kernel modules or
device units is in the guest's tests.
"""

import json
import pathlib
import re
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lab"))
pytest.register_assert_rewrite("appliance", "machine")
from appliance import (  # noqa: E402  (its folder is not a package)
    EXPORTS, IDLER, LOADER, SIZE, WRITER, check_written, client, ended, fields, kill, said_by,
    service_of, socket_of, uri)

pytest_plugins = ["appliance"]
pytestmark = pytest.mark.timeout(120)


def test_a_hand_written_file_is_an_export_that_starts_with_its_first_client(machine, export):
    export("web1", "Description=the first disk")
    assert machine.show(socket_of("web1"), "ActiveState") == "active"
    assert machine.show(service_of("web1"), "ActiveState") == "inactive"

    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    assert machine.show(service_of("web1"), "ActiveState") == "active"
    assert machine.show(service_of("web1"), "StatusText") != ""
    assert "web1" in machine.run("systemctl", "--no-pager", "status", service_of("web1"))
    listed = json.loads(machine.run("nbdinfo", "--list", "--json", "nbd://localhost"))
    assert "web1" in [one["export-name"] for one in listed["exports"]]


def test_the_unix_socket_serves_too(machine, export):
    export("web1")
    assert int(machine.run("nbdinfo", "--size",
                           "nbd+unix:///web1?socket=/run/nbd-export/nbd.sock")) == SIZE


def test_a_file_may_lie_where_the_sandbox_hides_everything_else(machine, export):
    for folder in ("/home/disks", "/var/tmp/a b", "/srv/100%i:\"x"):
        machine.run("mkdir", "-p", folder)
        machine.run("truncate", f"--size={SIZE}", f"{folder}/disk")
        machine.run("chown", "nbd-export:", f"{folder}/disk")
        export("hidden", device=f"{folder}/disk")
        machine.run("systemctl", "stop", service_of("hidden"))
        assert int(machine.run("nbdinfo", "--size", uri("hidden"))) == SIZE, folder


def test_a_loop_device_is_served_and_is_the_only_one_in_sight(machine, export, loop_device):
    if not loop_device:
        pytest.skip("no loop devices here")
    export("loop", device=loop_device)
    assert int(machine.run("nbdinfo", "--size", uri("loop"))) == SIZE
    pid = machine.show(service_of("loop"), "MainPID")
    seen = machine.run("nsenter", "-m", "-t", pid, "find", "/dev", "-exec", "test", "-b",
                       "{}", ";", "-print")
    assert seen == loop_device
    machine.run("python3", "-c", "import nbd,sys; h=nbd.NBD(); h.connect_uri(sys.argv[1]); "
                "h.pwrite(b'x'*4096, 0); h.flush(); assert h.pread(4096, 0) == b'x'*4096",
                uri("loop"))


def locked_memory(machine, pid):
    limits = machine.run("cat", f"/proc/{pid}/limits")
    return re.search(r"Max locked memory +(\w+)", limits)[1]


def test_io_uring_direct_io_and_locked_memory_work_in_the_sandbox(machine, export):
    export("fast", "Engine=io_uring")
    assert "can_trim: true" in machine.run("nbdinfo", uri("fast"))
    pid = machine.show(service_of("fast"), "MainPID")
    fds = machine.run("ls", "-l", f"/proc/{pid}/fd")
    assert "io_uring" in fds
    number = next(line.split(" -> ")[0].split()[-1] for line in fds.splitlines()
                  if line.endswith("/srv/fast.img"))
    flags = int(machine.run("sed", "-n", r"s/^flags:\s*//p", f"/proc/{pid}/fdinfo/{number}"), 8)
    assert flags & 0o40000, "no O_DIRECT"
    # All that this container may have; unlimited where it may.
    assert locked_memory(machine, pid) in ("unlimited", locked_memory(machine, 1))


def test_a_stop_finishes_what_is_in_flight_and_loses_nothing(machine, export):
    device = export("web1")
    writer = client(machine, WRITER, "web1")
    assert writer.stdout.readline() == "writing\n"
    machine.run("systemctl", "stop", service_of("web1"))
    assert machine.show(service_of("web1"), "Result") == "success"
    check_written(machine, device, json.loads(ended(writer)[-1])["acknowledged"])
    # The socket still listens, and the next client starts it again.
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE


def test_a_killed_export_is_back_and_its_neighbour_notices_nothing(machine, export):
    export("web1")
    export("web2")
    neighbour = client(machine, IDLER, "web2")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    for _ in range(8):                      # more often than systemd's usual start limit
        kill(machine, service_of("web1"))
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    neighbour.stdin.write("again\n")
    assert ended(neighbour) == ["read"]
    said = machine.journal(1000, f"--unit={service_of('web1')}")
    assert "status=9/KILL" in said


def test_a_killed_negotiator_is_back_and_clients_in_transmission_notice_nothing(machine, export):
    export("web1")
    idler = client(machine, IDLER, "web1")
    kill(machine, "nbd-negotiator.service")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]


def test_a_reload_disturbs_no_client_and_a_bad_file_changes_nothing(machine, export):
    export("web1")
    idler = client(machine, IDLER, "web1")
    before = [machine.show(unit, "MainPID") for unit in (service_of("web1"),
                                                         "nbd-negotiator.service")]
    path = f"{EXPORTS}/web1.conf"
    for text in ("[Export]\nDevice=/srv/web1.img\nDescription=new\n", "[Export]\nColour=red\n"):
        machine.write(path, text)
        machine.run("systemctl", "reload", service_of("web1"))
        machine.run("systemctl", "reload", "nbd-negotiator.service")
    machine.wait_for(lambda: "Colour" in machine.journal(100, f"--unit={service_of('web1')}"),
                     "word about the bad file")
    after = [machine.show(unit, "MainPID") for unit in (service_of("web1"),
                                                        "nbd-negotiator.service")]
    assert before == after
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]


def test_the_watchdog_is_fed(machine, export):
    export("web1")
    units = (service_of("web1"), "nbd-negotiator.service")
    folders = [f"/run/systemd/system/{unit}.d" for unit in units]
    for folder in folders:
        machine.run("mkdir", "-p", folder)
        machine.run("sh", "-c", f"printf '[Service]\\nWatchdogSec=4\\n' >{folder}/fast.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", *units)
    for unit in units:
        stamps = {machine.show(unit, "WatchdogTimestampMonotonic")}

        def fed_three_times(unit=unit, stamps=stamps):
            stamps.add(machine.show(unit, "WatchdogTimestampMonotonic"))
            return len(stamps) > 3

        machine.wait_for(fed_three_times, f"food for the watchdog of {unit}")
        assert machine.show(unit, "NRestarts") == "0"
    machine.run("rm", "-r", *folders)
    machine.run("systemctl", "daemon-reload")


def test_nbdctl_add_makes_what_a_hand_written_file_makes(machine, image):
    machine.run("nbdctl", "add", "ctl", image("ctl.img"), "--description", "by nbdctl")
    assert machine.show(socket_of("ctl"), "ActiveState") == "active"
    assert int(machine.run("nbdinfo", "--size", uri("ctl"))) == SIZE
    assert "ctl" in machine.run("nbdctl", "list", "--noheadings")
    machine.run("nbdctl", "remove", "ctl")
    assert machine.show(socket_of("ctl"), "ActiveState") == "inactive"
    assert "ctl" not in machine.run("ls", EXPORTS, "/run/nbd-export/instances",
                                    "/run/nbd-export/flush-failed")


def test_the_five_commands_of_the_readme_make_an_export_for_a_network(machine, loop_device,
                                                                      image):
    if not loop_device:
        pytest.skip("no loop devices here")
    del image                                # only its end
    readme = (ROOT / "README.md").read_text()
    block = readme.split("## On a real system, in five commands")[1].split("```")[1]
    commands = block.strip().splitlines()[1:]
    assert len(commands) == 5
    assert commands[0] == "scripts/install-packages build"
    assert commands[1].endswith("&& meson install -C build")    # as the lab has done
    device = commands[3].split()[3]
    machine.run("mkdir", "-p", pathlib.Path(device).parent)
    machine.run("ln", "-s", loop_device, device)
    machine.run("ip", "address", "add", "10.0.5.7/24", "dev", "lo")
    machine.run("systemctl", "disable", "--now", "nbd-negotiator.socket")
    for command in commands[2:]:
        said = machine.run("sh", "-c", command)
    assert fields(said)["EXPORTS"] == "1" and fields(said)["NEGOTIATOR"] == "inactive"

    assert int(machine.run("nbdinfo", "--size", "nbd://10.0.5.7/web1")) == SIZE
    assert fields(machine.run("sh", "-c", commands[4]))["NEGOTIATOR"] == "running"
    assert machine.ask("nbdinfo", uri("web1")).returncode != 0      # from another address
    refused = machine.journal(10, "EVENT=client-refused", "REASON=no-access", "EXPORT=web1")
    assert "127.0.0.1" in refused or "::1" in refused
    machine.run("ip", "address", "del", "10.0.5.7/24", "dev", "lo")
    machine.run("nbdctl", "remove", "web1")
    machine.run("rm", device)


@pytest.mark.parametrize("label, name", [
    ("plain", "with space/and slash"), ("utf8", "größe/ディスク 1"),
    (r"a\x2db:c_d.e", "odd label")])
def test_names_go_through_every_verb_and_to_clients(machine, image, label, name):
    device = image(f"Laufwerk/{label} ü")
    machine.run("nbdctl", "add", label, device, "--name", name, "--description", f"für {name}")
    idler = client(machine, IDLER, name)
    listed = json.loads(machine.run("nbdctl", "list", "--json", "-o", "+DESCRIPTION"))
    row = next(row for row in listed["exports"] if row["label"] == label)
    assert (row["name"], row["device"], row["description"]) == (name, device, f"für {name}")
    (row,) = json.loads(machine.run("nbdctl", "show", "--json", label))["exports"]
    assert (row["label"], row["name"], row["device"], row["clients"]) == (label, name, device, 1)
    (row,) = json.loads(machine.run("nbdctl", "clients", "--json", label))["clients"]
    assert row["export"] == label
    offered = json.loads(machine.run("nbdinfo", "--list", "--json", "nbd://localhost"))
    assert (name, f"für {name}") in [(one["export-name"], one["description"])
                                     for one in offered["exports"]]
    ended(idler)
    machine.wait_for(lambda: "serving " + device in machine.run("nbdctl", "log", label),
                     "journal of the export")
    assert name in machine.run("nbdctl", "log", label)      # handed over by the negotiator
    machine.run("nbdctl", "remove", label)
    assert machine.ask("nbdinfo", uri(name)).returncode != 0


@pytest.mark.parametrize("label", ["with space", "a/b", "../up", "größe", ""])
def test_a_label_that_no_unit_can_have_is_refused_and_leaves_nothing(machine, image, label):
    done = machine.ask("nbdctl", "add", label, image("web1"))
    assert done.returncode != 0 and "label" in done.stderr
    assert machine.run("ls", "-A", EXPORTS) == ""


def test_remove_refuses_under_clients_and_names_them(machine, image):
    machine.run("nbdctl", "add", "web1", image("web1"))
    idlers = [client(machine, IDLER, "web1") for _ in range(3)]
    addresses = machine.run("nbdctl", "clients", "web1", "--noheadings", "-o", "ADDRESS").split()
    done = machine.ask("nbdctl", "remove", "web1")
    assert done.returncode == 1 and "web1 has 3 clients" in done.stderr
    assert all(address in done.stderr for address in addresses) and len(addresses) == 3
    for idler in idlers:
        idler.stdin.write("again\n")
        assert ended(idler) == ["read"]
    machine.wait_for(lambda: machine.ask("nbdctl", "remove", "web1").returncode == 0,
                     "remove without clients")


@pytest.mark.parametrize("how", ["--drain", "--drain=30", "--force"])
def test_remove_under_load_when_told_to_ends_clients_and_loses_nothing(machine, image, how):
    device = image("web1")
    machine.run("nbdctl", "add", "web1", device)
    writer = client(machine, WRITER, "web1")
    assert writer.stdout.readline() == "writing\n"
    machine.run("nbdctl", "remove", "web1", how)
    acknowledged = json.loads(ended(writer)[-1])["acknowledged"]
    check_written(machine, device, acknowledged)
    assert [machine.show(unit("web1"), "ActiveState") for unit in (socket_of, service_of)] == \
        ["inactive"] * 2
    assert "web1" not in machine.run("ls", "-A", EXPORTS, "/run/nbd-export/instances",
                                     "/run/nbd-export/channels")
    assert machine.ask("nbdinfo", uri("web1")).returncode != 0


def test_drains_under_load_fail_no_acknowledged_write(machine, image):
    device = image("web1")
    machine.run("nbdctl", "add", "web1", device)
    loaders = [machine.popen("python3", "-c", LOADER, uri("web1"), first)
               for first in (0, 1000, 2000, 3000)]
    for _ in range(4):
        for loader in loaders:
            loader.stdin.write("go\n")
            loader.stdin.flush()
        assert [said_by(loader) for loader in loaders] == ["writing"] * 4
        machine.run("nbdctl", "drain", "web1")
        assert {said_by(loader) for loader in loaders} <= {"ESHUTDOWN", "ENOTCONN"}
        assert fields(machine.run("nbdctl", "show", "web1"))["STATE"] == "drained"
        assert machine.ask("nbdinfo", uri("web1")).returncode != 0
        machine.run("nbdctl", "resume", "web1")
    content = machine.read(device)
    for loader in loaders:
        acknowledged = json.loads(ended(loader)[-1])
        assert len(acknowledged) > 50
        for block, number in acknowledged.items():
            got = int.from_bytes(content[int(block) * 4096:int(block) * 4096 + 8], "big")
            # One that was not acknowledged may be there, too, in place of an older one.
            assert got >= number and got % 1000 == number % 1000, (block, got, number)


def test_nbdctl_reload_takes_what_is_good_and_names_what_is_bad(machine, export, image):
    export("web1")
    idler = client(machine, IDLER, "web1")
    before = machine.show(service_of("web1"), "MainPID")
    machine.write(f"{EXPORTS}/web1.conf", "[Export]\nDevice=/srv/web1.img\nDescription=new\n")
    machine.write(f"{EXPORTS}/web2.conf", f"[Export]\nDevice={image('web2.img')}\n")
    machine.write(f"{EXPORTS}/web3.conf", "[Export]\nDevice=/srv/web3.img\nColour=red\n")
    done = machine.ask("nbdctl", "reload")
    assert done.returncode == 1 and done.stdout.endswith("reloaded 2 exports\n")
    assert "web3.conf:3" in done.stderr and "Colour" in done.stderr
    assert int(machine.run("nbdinfo", "--size", uri("web2"))) == SIZE
    offered = json.loads(machine.run("nbdinfo", "--list", "--json", "nbd://localhost"))
    assert sorted((one["export-name"], one.get("description", "")) for one in
                  offered["exports"]) == [("web1", "new"), ("web2", "")]

    machine.write(f"{EXPORTS}/web1.conf", "[Export]\nDevice=/srv/web1.img\nMaxConnections=x\n")
    assert machine.ask("nbdctl", "reload").returncode == 1
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE   # as it was
    assert machine.show(service_of("web1"), "MainPID") == before
    idler.stdin.write("again\n")
    assert ended(idler) == ["read"]


def test_busctl_reads_the_control_sockets(machine, export):
    export("web1")
    machine.run("nbdinfo", "--size", uri("web1"))
    for socket, path, interface, name in (
            ("instances/web1", "export", "Export1", "Size"),
            ("negotiator", "negotiator", "Negotiator1", "Exports")):
        said = machine.run("busctl", f"--address=unix:path=/run/nbd-export/{socket}/control",
                           "introspect", "org.nbd_export", f"/org/nbd_export/{path}")
        assert f"org.nbd_export.{interface}" in said and f".{name} " in said


def test_a_bad_file_is_named_in_the_journal_and_stops_no_other(machine, export):
    machine.write(f"{EXPORTS}/bad.conf", "[Export]\nColour=red\n")
    try:
        export("web1")
        assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
        machine.wait_for(lambda: "exports.d/bad.conf" in machine.journal(
            100, "--identifier=nbd-export-generator", "EVENT=settings-skipped", "EXPORT=bad"),
            "word about the bad file")
        said = machine.run("nbdctl", "log", "bad")
        assert "nbd-export-generator" in said and "nbd-negotiator" in said
        assert "exports.d/bad.conf:2" in machine.journal(9, f"--unit={service_of('bad')}")
    finally:
        machine.remove(f"{EXPORTS}/bad.conf")


def test_what_the_journal_says_to_do_mends_an_export_that_was_skipped(machine, image):
    device = image("late")
    machine.write(f"{EXPORTS}/late.conf", f"[Export]\nDevice={device}\nAllow=nonsense\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("journalctl", "--update-catalog")
    said = machine.wait_for(lambda: machine.journal(
        1, "-x", "--identifier=nbd-export-generator", "EVENT=settings-skipped", "EXPORT=late"),
        "the entry")
    assert 'Then "nbdctl reload"' in said, said
    machine.write(f"{EXPORTS}/late.conf", f"[Export]\nDevice={device}\n")
    machine.run("systemctl", "reload-or-restart", "nbd-negotiator.service")
    assert machine.ask("nbdinfo", uri("late")).returncode != 0
    machine.run("nbdctl", "reload")
    assert int(machine.run("nbdinfo", "--size", uri("late"))) == SIZE


def test_journalctl_explains_an_entry(machine, export):
    export("web1", "Allow=192.0.2.1")
    machine.run("nbdctl", "reload")
    assert machine.ask("nbdinfo", uri("web1")).returncode != 0
    machine.run("journalctl", "--update-catalog")
    said = machine.wait_for(lambda: machine.journal(1, "-x", "EVENT=client-refused",
                                                    "REASON=no-access"), "the entry")
    assert re.search(r"Subject: Client \S+ was refused", said), said
    assert "no rule of Allow=" in said.split("Subject:")[1]
    assert "man:nbd-negotiator(8)" in said


def test_an_idle_export_ends_and_each_of_its_clients_is_served(machine, export, counts):
    export("web1", "IdleTimeout=1")
    unit = service_of("web1")

    def ends():
        return machine.journal("all", f"--unit={unit}", "EVENT=export-idle"
                               ).count("no client for 1 s")

    for _ in range(counts(3, 20)):
        before = ends()
        assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
        # The next one comes as soon as it is told, and finds it ending or ended.
        machine.wait_for(lambda before=before: ends() > before, "its end")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    machine.wait_for(lambda: machine.show(unit, "ActiveState") == "inactive", "the last end")
    assert machine.show(unit, "Result") == "success"
    assert machine.show(socket_of("web1"), "ActiveState") == "active"
    assert machine.run("nbdctl", "list", "--noheadings", "-o", "STATE") == "inactive"


def test_an_export_without_a_file_cannot_be_started(machine):
    done = machine.ask("systemctl", "start", socket_of("typo"))
    assert done.returncode != 0


@pytest.mark.parametrize("unit, most", [("nbd-negotiator.service", 1.5),
                                        (service_of("web1"), 2.0)])
def test_the_sandbox_is_as_tight_as_promised(machine, export, unit, most):
    export("web1")
    done = machine.ask("systemd-analyze", "security", "--no-pager",
                       f"--threshold={int(most * 10)}", unit)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_programs_run_as_users_of_their_own_without_capabilities(machine, export):
    export("web1")
    machine.run("nbdinfo", "--size", uri("web1"))
    for unit, user in ((service_of("web1"), "nbd-export"),
                       ("nbd-negotiator.service", "nbd-negotiator")):
        pid = machine.show(unit, "MainPID")
        assert machine.run("ps", "-o", "user:32=", "-p", pid) == user
        status = dict(line.split(":\t", 1) for line in
                      machine.run("cat", f"/proc/{pid}/status").splitlines())
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"


def test_after_the_machine_booted_again_the_export_is_there(machine, export):
    export("web1")
    export("early", "StartAtBoot=yes")
    machine.reboot()
    assert machine.show(socket_of("web1"), "ActiveState") == "active"
    assert machine.show(service_of("web1"), "ActiveState") == "inactive"
    machine.wait_for(lambda: machine.show(service_of("early"), "ActiveState") == "active",
                     "start at boot")
    assert int(machine.run("nbdinfo", "--size", uri("web1"))) == SIZE
    assert machine.run("systemctl", "list-units", "--failed", "--plain", "--no-legend",
                       "nbd-*") == ""
