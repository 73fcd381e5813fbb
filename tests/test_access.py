# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may use which export, and how many connections a source may have."""

import contextlib
import resource
import select
import socket
import time

import nbdchannel as channel
import nbdwire as wire
import pytest
from conftest import wait_until
from nbdchannel import ABANDON, GONE, REASON, REFUSAL, RESERVE, Record
from nbdwire import PATIENCE
from negotiator_bench import Bench, asks_go

HERE, THERE = "127.0.0.1", "127.0.0.2"
LISTED = [(b"disk", b"")]


@pytest.fixture
def bench(tmp_path, programs):
    with contextlib.ExitStack() as stack:
        bench = Bench(stack, tmp_path, programs.negotiator)
        bench.listen(HERE)
        bench.config = tmp_path / "negotiator.conf"
        yield bench


def configure(bench, **keys):
    lines = "".join(f"{key}={value}\n" for key, value in keys.items())
    bench.config.write_text(f"[Negotiator]\n{lines}")


def start(bench, *arguments):
    return bench.start(f"--config={bench.config}", *arguments)


def sees(bench, **how):
    with contextlib.closing(bench.client(**how)) as client:
        return client.list()


def enters(bench, fake, end=None, connection=1, token=0x1234, **how):
    """A client all the way: its socket, what the reservation said, the export's end."""
    client = bench.client(**how)
    client.send_option(wire.OPT_GO, wire.go_payload("disk"))
    end = end or fake.ready()
    reserve = end.expect(RESERVE)
    end.grant(reserve, token=token, connection=connection)
    wire.parse_info(client.receive_replies(wire.OPT_GO))
    handed = end.receive_client(token=token)
    return client, handed, reserve, end


# Rules -------------------------------------------------------------------------------


def test_by_default_this_machine_may_read_and_write(bench):
    fake = bench.export()
    start(bench)
    assert sees(bench) == LISTED
    assert sees(bench, at=HERE) == LISTED
    assert sees(bench, at=HERE, source=THERE) == LISTED
    _, _, reserve, _ = enters(bench, fake, at=HERE)
    assert reserve.rights == channel.RIGHT_READ | channel.RIGHT_WRITE


def test_by_default_no_other_machine_gets_in(bench):
    """Seen from an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]
    bench.export()
    bench.listen(own)
    start(bench)
    assert sees(bench, at=own) == []
    assert sees(bench, at=HERE) == LISTED


@pytest.mark.parametrize("rules, unix, here, there", [
    ("any", True, True, True),
    ("local", True, False, False),
    ("127.0.0.0/8", False, True, True),
    ("127.0.0.2", False, False, True),
    ("127.0.0.1/32 local", True, True, False),
    ("::1 192.0.2.0/24", False, False, False),
    ("::ffff:127.0.0.2", False, False, True),
])
def test_list_shows_what_go_would_allow(bench, rules, unix, here, there):
    fake = bench.export(Allow=rules)
    bench.export("hidden", Allow="192.0.2.1")
    start(bench)
    end = None
    for how, may in (({}, unix), ({"at": HERE}, here), ({"at": HERE, "source": THERE}, there)):
        client = bench.client(**how)
        assert client.list() == (LISTED if may else [])
        client.send_option(wire.OPT_GO, wire.go_payload("disk"))
        if may:
            end = end or fake.ready()
            end.expect(RESERVE)
            continue
        answer = client.receive_replies(wire.OPT_GO)[-1]
        nobody = client.option(wire.OPT_GO, wire.go_payload("nothing"))[-1]
        assert answer.type == nobody.type == wire.REP_ERR_UNKNOWN
        assert answer.text == "there is no export 'disk'"
        assert fake.nobody_waits()


def test_the_log_tells_the_truth_about_who_was_denied(bench):
    bench.export(Allow="192.0.2.0/24:read 198.51.100.7")
    process = start(bench)
    client = bench.client(at=HERE)
    assert client.result(wire.OPT_GO, wire.go_payload("disk")) == wire.REP_ERR_UNKNOWN
    wait_until(lambda: "no access to export 'disk'" in process.log, "the entry")
    (line,) = [line for line in process.log.splitlines() if "no access" in line]
    assert "no rule of Allow=192.0.2.0/24:read 198.51.100.7 (the export's file)" in line
    assert "127.0.0.1:" in line and "NBD_REP_ERR_UNKNOWN" in line


def test_export_name_hangs_up_on_who_has_no_access(bench):
    bench.export(Allow="192.0.2.1")
    start(bench)
    client = bench.client()
    client.send_option(wire.OPT_EXPORT_NAME, b"disk")
    assert client.closed()


def test_who_may_only_read_is_told_so_before_and_after(bench):
    fake = bench.export(Allow="127.0.0.2:read any")
    start(bench)
    client = bench.client(at=HERE, source=THERE)
    client.send_option(wire.OPT_INFO, wire.go_payload("disk", [wire.INFO_BLOCK_SIZE]))
    end = fake.ready()
    told = wire.parse_info(client.receive_replies(wire.OPT_INFO))
    assert told.flags & wire.READ_ONLY and not told.flags & wire.SEND_TRIM
    client.send_option(wire.OPT_GO, wire.go_payload("disk"))
    assert end.expect(RESERVE).rights == channel.RIGHT_READ
    _, _, reserve, _ = enters(bench, fake, end, at=HERE)
    assert reserve.rights == channel.RIGHT_READ | channel.RIGHT_WRITE


def test_the_rules_for_all_hold_where_an_export_has_none(bench):
    bench.export("closed")
    bench.export("open", Allow="any")
    configure(bench, Allow="192.0.2.1")
    start(bench)
    assert sees(bench) == [(b"open", b"")]


def test_ipv6_rules_match_ipv6_clients(bench):
    bench.export(Allow="[::1]:read")
    try:
        bench.listen("::1", socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    start(bench)
    assert sees(bench, at="::1") == LISTED
    assert sees(bench, at=HERE) == []


def test_an_ipv4_client_of_a_socket_for_both_is_an_ipv4_client(bench):
    bench.export(Allow="127.0.0.1")
    try:
        bench.listen("::", socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = bench.tcp["::"].getsockname()[1]
    start(bench)
    with contextlib.closing(wire.Options((HERE, port))) as client:
        assert client.list() == LISTED


def test_a_running_export_is_told_of_the_refusal(bench):
    fake = bench.export(Allow="127.0.0.1")
    start(bench)
    _, _, _, end = enters(bench, fake, at=HERE)
    with contextlib.closing(bench.client(at=HERE, source=THERE)) as client:
        assert client.result(wire.OPT_GO, wire.go_payload("disk")) == wire.REP_ERR_UNKNOWN
    record = end.expect(REFUSAL, reason=REASON["no-access"])
    assert record.peer.startswith("127.0.0.2:")
    assert "no access to export 'disk'" in record.sentence


# Limits ------------------------------------------------------------------------------


def idle_sockets(stack, address, source, n):
    """n connections that say nothing."""
    made = []
    for _ in range(n):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.bind((source, 0))
        sock.connect_ex(address)
        made.append(sock)
    return made


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 12000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"RLIMIT_NOFILE is {hard}, 12000 are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, soft), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_idle_sockets_keep_no_other_source_out(bench, many_descriptors):
    bench.export()
    process = start(bench)
    address = bench.tcp[HERE].getsockname()
    longest = 0
    with contextlib.ExitStack() as crowd:
        for _ in range(20):
            idle_sockets(crowd, address, THERE, 500)
            begun = time.monotonic()
            with contextlib.closing(bench.client(at=HERE)) as client:
                assert client.list() == LISTED
            longest = max(longest, time.monotonic() - begun)
        assert longest < 8, f"another source waited for {longest:.2f} s"
        assert process.n_fds() < 400, "the crowd has more than its 256 places"
    lines = [line for line in process.log.splitlines() if "limit for one source" in line]
    assert lines and len(lines) < 30
    assert "127.0.0.2" in lines[0]


def test_a_source_has_so_many_handshakes_and_others_have_theirs(bench):
    bench.export()
    configure(bench, MaxHandshakesPerSource=2)
    start(bench)
    kept = [bench.client(at=HERE) for _ in range(2)]
    refused = bench.client(at=HERE, flags=None)
    assert refused.closed()
    assert sees(bench, at=HERE, source=THERE) == LISTED
    assert sees(bench) == LISTED
    assert [client.list() for client in kept] == [LISTED, LISTED]
    kept.pop().close()

    def greeted():
        with contextlib.closing(bench.client(at=HERE, flags=None)) as client:
            with contextlib.suppress(wire.Closed, ConnectionError):
                return client.greeting()

    wait_until(greeted, "the place that is free again")


def test_when_all_places_are_taken_the_busiest_source_gives_way(bench):
    bench.export()
    configure(bench, MaxHandshakes=4)
    process = start(bench)
    crowd = [bench.client(at=HERE) for _ in range(4)]
    assert sees(bench, at=HERE, source=THERE) == LISTED
    assert crowd[0].closed()
    assert [client.list() for client in crowd[1:]] == [LISTED] * 3
    assert "its source has the most of them" in process.log


def test_a_source_that_has_no_more_than_others_takes_nobodys_place(bench):
    bench.export()
    configure(bench, MaxHandshakes=2)
    process = start(bench)
    first, second = bench.client(at=HERE), bench.client(at=HERE, source=THERE)
    assert bench.client(flags=None).closed()
    assert first.list() == second.list() == LISTED
    assert "which is the limit: 1 more turned away" in process.log


def refused_with(bench, kind, **how):
    """A client whose GO is refused with that error; the sentence."""
    client = bench.client(**how)
    answer = client.option(wire.OPT_GO, wire.go_payload("disk"))[-1]
    assert answer.type == kind, answer
    return answer.text


def test_an_export_takes_so_many_connections_from_one_source(bench):
    fake = bench.export(MaxConnectionsPerSource=2)
    start(bench)
    _, _, _, end = enters(bench, fake, at=HERE, connection=1)
    enters(bench, fake, end, at=HERE, connection=2)
    assert "serves 2 clients from 127.0.0.1" in refused_with(bench, wire.REP_ERR_POLICY, at=HERE)
    record = end.expect(REFUSAL, reason=REASON["limit"])
    assert record.peer.startswith("127.0.0.1:")
    enters(bench, fake, end, at=HERE, source=THERE, connection=3)
    end.send(Record(GONE, connection=2, reason=REASON["disconnect"]))
    enters(bench, fake, end, at=HERE, connection=4)


def test_who_was_there_before_the_negotiator_counts(bench):
    fake = bench.export(MaxConnectionsPerSource=2)
    start(bench)
    client = asks_go(bench)
    end = fake.accept()
    offer, *contexts, ready = end.offer_records()
    live = [Record(channel.LIVE, connection=n, peer=f"127.0.0.2:{n}") for n in (1, 2)]
    for record in (offer, *contexts, *live, ready):
        end.send(record)
    end.grant(end.expect(RESERVE), connection=3)
    wire.parse_info(client.receive_replies(wire.OPT_GO))
    end.receive_client()
    assert "2 clients from 127.0.0.2" in refused_with(bench, wire.REP_ERR_POLICY, at=HERE,
                                                      source=THERE)


def test_clients_that_want_in_together_do_not_slip_past_the_limit(bench):
    fake = bench.export(MaxConnectionsPerSource=1)
    start(bench)
    first = asks_go(bench)
    end = fake.ready()
    reserve = end.expect(RESERVE)
    refused_with(bench, wire.REP_ERR_POLICY)
    end.expect(REFUSAL)
    first.close()
    end.grant(reserve, token=1)
    end.expect(ABANDON)
    later = asks_go(bench)
    end.expect(RESERVE)
    assert later


@pytest.mark.parametrize("key, words", [
    ("MaxClients", "1 clients are being served, which is the limit"),
    ("MaxClientsPerSource", "1 clients from 127.0.0.1 are being served"),
])
def test_limits_in_all_count_all_exports(bench, key, words):
    fake = bench.export()
    other = bench.export("other")
    configure(bench, **{key: 1})
    start(bench)
    _, handed, _, end = enters(bench, fake, at=HERE)
    client = bench.client(at=HERE)
    client.send_option(wire.OPT_GO, wire.go_payload("other"))
    second = other.ready()
    answer = client.receive_replies(wire.OPT_GO)[-1]
    assert answer.type == wire.REP_ERR_POLICY and words in answer.text
    end.send(Record(GONE, connection=1, reason=REASON["disconnect"]))
    second.expect(REFUSAL)

    def reserved():
        client.send_option(wire.OPT_GO, wire.go_payload("other"))
        return second.sock in select.select([second.sock, client.sock], [], [], PATIENCE)[0] and \
            second.recv().type == RESERVE or not client.receive_replies(wire.OPT_GO)

    wait_until(reserved, "a place")


def test_who_is_refused_again_and_again_fills_no_log_and_hides_nobody_else(bench):
    bench.listen(THERE)
    bench.export("disk", Allow=THERE)
    process = start(bench)
    for _ in range(40):
        client = bench.client(at=HERE)
        for _ in range(8):
            assert client.result(wire.OPT_GO, wire.go_payload("none")) == wire.REP_ERR_UNKNOWN
        client.close()
    other = bench.client()
    assert other.result(wire.OPT_GO, wire.go_payload("missing")) == wire.REP_ERR_UNKNOWN
    assert process.log.count("there is no export 'none'") == 20
    assert process.log.count("there is no export 'missing'") == 1
    assert process.stop() == 0
    assert f"client {HERE}: 300 more refusals of clients from there in 10 s" in process.log
