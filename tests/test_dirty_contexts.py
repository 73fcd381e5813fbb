# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps as clients see them: qemu:dirty-bitmap:NAME in the handshake and in BLOCK_STATUS,
by our own client and by nbdinfo, qemu-img and libnbd."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

import nbdchannel as channel
from conftest import GIB, KIB, MIB, TIB, by_mode, needs_program, wait_until
from nbdctl import Ctl, short_folder  # noqa: F401, a fixture
from nbdwire import (ALLOCATION_DEPTH, BASE_ALLOCATION, EIO, EXTENDED, INFO_BLOCK_SIZE, OPT_GO,
                     PATIENCE, REP_ERR_PLATFORM, STRUCTURED, Closed, RequestError, go_payload)
from nbdwire import CMD_FLAG_REQ_ONE as REQ_ONE

KIND = "qemu:dirty-bitmap:"
GRANULE = 64 * KIB
SIZE = 8 * MIB + 3 * 512                # the last granule is a short one
CLEAN, DIRTY = 0, 1
rich_modes = by_mode(STRUCTURED, EXTENDED)


class Exported:
    """One export, "disk", with bitmaps, under `nbdctl serve --config`."""

    def __init__(self, server, ctl, size):
        self.server, self.ctl, self.size = server, ctl, size
        self.uri = f"nbd+unix:///disk?socket={server.socket}"

    def options(self):
        options = self.server.options()
        options.structured_reply()
        return options

    def client(self, *bitmaps, mode=EXTENDED, also=()):
        """Connected, with these bitmaps selected, and other contexts."""
        return self.server.client("disk", mode,
                                  contexts=[*also, *(KIND + name for name in bitmaps)])

    def listed(self, *queries):
        return set(self.options().list_contexts("disk", queries))

    def bitmap(self, verb, *words, **how):
        return self.ctl(f"bitmap {verb}", "disk", *words, **how)

    def can_remove(self, name):
        done = subprocess.run(self.ctl.command("bitmap remove", "disk", name), env=self.ctl.env,
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.returncode == 0

    def kill_export(self):
        self.server.lossy = True
        (pid,) = self.server.pids("nbd-export")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in self.server.children(), "the export's end")


@pytest.fixture
def exported(serve, programs, disk_folder, short_folder):  # noqa: F811
    """exported(*names, disk=..., size=..., Key=value) → Exported, with new bitmaps"""

    def start(*names, disk=None, size=SIZE, **settings):
        if disk is None:
            disk = disk_folder / "disk"
            with open(disk, "wb") as file:
                file.truncate(size)
        ctl = Ctl(programs.nbdctl, short_folder)
        settings = {"Device": disk, "BitmapStore": disk_folder / "bitmaps"} | settings
        ctl.write("disk", "\n".join(f"{key}={value}" for key, value in settings.items()))
        server = serve(config=ctl.exports)
        (ctl.runtime,) = server.runtime.iterdir()
        here = Exported(server, ctl, size)
        if names:
            here.bitmap("add", *names)
        return here

    return start


def runs(size, granules, granule=GRANULE):
    """[(length, flags)] of a device in which these granules are dirty."""
    found = []
    for number in range((size + granule - 1) // granule):
        length, flags = min(granule, size - number * granule), int(number in granules)
        if found and found[-1][1] == flags:
            found[-1] = (found[-1][0] + length, flags)
        else:
            found.append((length, flags))
    return found


def whole_map(client, context, size):
    """Every extent, however many requests that takes."""
    found, at = [], 0
    while at < size:
        length = size - at if client.mode == EXTENDED else min(size - at, 2**32 - GRANULE)
        for length, flags in client.status(at, length)[context]:
            if found and found[-1][1] == flags:
                found[-1] = (found[-1][0] + length, flags)
            else:
                found.append((length, flags))
            at += length
    return found


# The handshake


@pytest.fixture
def two(exported):
    return exported("a", "ab")


EVERY = {BASE_ALLOCATION, ALLOCATION_DEPTH, KIND + "a", KIND + "ab"}


@pytest.mark.parametrize("queries, found", [
    ([], EVERY),
    (["qemu:"], EVERY - {BASE_ALLOCATION}),
    ([KIND], {KIND + "a", KIND + "ab"}),
    ([KIND + "a"], {KIND + "a"}),
    ([KIND + "ab", "base:"], {KIND + "ab", BASE_ALLOCATION}),
    ([KIND, "qemu:", KIND + "a"], EVERY - {BASE_ALLOCATION}),
    ([KIND + "b"], set()), ([KIND + "A"], set()), ([KIND + "a "], set()),
    (["qemu:dirty-bitmap"], set()), (["dirty-bitmap:a"], set()), (["a"], set()),
], ids=lambda value: str(sorted(value)))
def test_list_shows_bitmaps_by_name_and_by_wildcard(two, queries, found):
    assert two.listed(*queries) == found


@pytest.mark.parametrize("queries, found", [
    ([], set()),
    (["qemu:"], set()),
    ([KIND], set()),
    ([KIND + "a"], {KIND + "a"}),
    ([KIND + "ab", KIND + "a"], {KIND + "a", KIND + "ab"}),
    ([KIND + "ab", BASE_ALLOCATION, KIND + "nope", KIND], {KIND + "ab", BASE_ALLOCATION}),
    (sorted(EVERY), EVERY),
], ids=lambda value: str(sorted(value)))
def test_set_selects_bitmaps_by_their_exact_names_alone(two, queries, found):
    options = two.options()
    chosen = options.set_contexts("disk", queries)
    assert set(chosen) == found
    assert all(number >= 2 for name, number in chosen.items() if name.startswith(KIND))
    assert options.go("disk").size == two.size


@pytest.mark.parametrize("name", ["x" * 255, "\N{SNOWMAN}" * 85, "a:b:c", KIND], ids=ascii)
def test_a_bitmaps_name_is_any_utf8_of_255_bytes(exported, name):
    here = exported()
    here.bitmap("add", name)
    assert here.listed(KIND) == {KIND + name}
    client = here.client(name)
    assert client.status(0, SIZE) == {KIND + name: [(SIZE, CLEAN)]}


def test_as_many_bitmaps_as_there_may_be_are_selected_at_once(exported):
    names = [f"bitmap-{number}" for number in range(60)]
    here = exported(*names)
    client = here.client(*names, also=[BASE_ALLOCATION, ALLOCATION_DEPTH])
    assert len(client.contexts) == 62
    client.write(0, b"x")
    told = client.status(0, SIZE)
    assert told.pop(BASE_ALLOCATION) and told.pop(ALLOCATION_DEPTH)
    assert told == {KIND + name: runs(SIZE, {0}) for name in names}


# What is dirty


@rich_modes
def test_a_bitmap_begins_clean_and_shows_what_changed_in_whole_granules(two, mode):
    client = two.client("a", mode=mode)
    assert client.status(0, SIZE) == {KIND + "a": [(SIZE, CLEAN)]}
    client.write(3 * GRANULE + 512, b"x" * 512)
    client.write(5 * GRANULE - 1, b"xy")
    client.zero(8 * GRANULE, 2 * GRANULE)
    client.trim(20 * GRANULE, GRANULE)
    client.write(SIZE - 1, b"z")
    assert client.status(0, SIZE) == {
        KIND + "a": runs(SIZE, {3, 4, 5, 8, 9, 20, SIZE // GRANULE})}


@rich_modes
def test_what_changes_nothing_dirties_nothing(two, mode):
    client = two.client("a", mode=mode, also=[BASE_ALLOCATION])
    client.read(0, MIB)
    client.flush()
    client.status(0, SIZE)
    with pytest.raises(RequestError):
        client.write(SIZE - 1, b"past the end")
    assert client.status(0, SIZE)[KIND + "a"] == [(SIZE, CLEAN)]


@rich_modes
def test_a_bitmap_that_has_lost_track_is_dirty_as_a_whole(exported, mode):
    """Its file names it, and there is no store that would have it."""
    here = exported(Bitmap="lost")
    client = here.client("lost", mode=mode)
    assert client.status(0, SIZE) == {KIND + "lost": [(SIZE, DIRTY)]}
    assert client.status(512, 1000, REQ_ONE) == {KIND + "lost": [(1000, DIRTY)]}


def test_what_one_client_was_told_is_written_another_sees_dirty(two):
    writer, reader = two.client(), two.client("a")
    for number in range(100):
        at = number * 7919 * 512 % (SIZE - 512)
        writer.write(at, b"x" * 512)
        assert reader.status(at, 512) == {KIND + "a": [(512, DIRTY)]}


@rich_modes
@pytest.mark.parametrize("offset, length, extents", [
    (0, SIZE, [(GRANULE, CLEAN), (2 * GRANULE, DIRTY), (SIZE - 3 * GRANULE, CLEAN)]),
    (0, 1, [(1, CLEAN)]),
    (GRANULE - 1, 2, [(1, CLEAN), (1, DIRTY)]),
    (GRANULE + 7, GRANULE, [(GRANULE, DIRTY)]),
    (GRANULE + 7, 2 * GRANULE, [(2 * GRANULE - 7, DIRTY), (7, CLEAN)]),
    (3 * GRANULE, 512, [(512, CLEAN)]),
    (SIZE - 513, 513, [(513, CLEAN)]),
])
def test_extents_begin_and_end_where_the_request_does(two, mode, offset, length, extents):
    client = two.client("a", mode=mode)
    client.write(GRANULE, b"x" * 2 * GRANULE)
    assert client.status(offset, length) == {KIND + "a": extents}
    assert client.status(offset, length, REQ_ONE) == {KIND + "a": extents[:1]}


@rich_modes
def test_several_contexts_have_a_chunk_each_and_done_comes_last(two, mode):
    client = two.client("a", mode=mode)
    client.write(0, b"x")
    two.bitmap("add", "later")
    client = two.client("later", "ab", "a", mode=mode, also=[ALLOCATION_DEPTH, BASE_ALLOCATION])
    client.write(GRANULE, b"x")
    cookie = client.send_status(0, SIZE)
    reply = client.wait(cookie).check()
    assert [chunk.flags for chunk in reply.chunks] == [0] * 4 + [1]
    told = client.status(0, SIZE)
    assert set(told) == {BASE_ALLOCATION, ALLOCATION_DEPTH, KIND + "a", KIND + "ab",
                         KIND + "later"}
    assert told[KIND + "a"] == told[KIND + "ab"] == runs(SIZE, {0, 1})
    assert told[KIND + "later"] == runs(SIZE, {1})


def test_a_payload_narrows_the_answer_to_some_bitmaps(two):
    client = two.client("a", "ab", also=[BASE_ALLOCATION])
    client.write(0, b"x")
    a, ab = client.contexts[KIND + "a"], client.contexts[KIND + "ab"]
    for only in ([a], [ab], [ab, a], [0, a]):
        reply = client.wait(client.send_status(0, SIZE, only=only)).check()
        assert set(reply.extents) == set(only)
        assert all(reply.extents[number] == runs(SIZE, {0}) for number in only if number)
    reply = client.wait(client.send_status(0, SIZE, REQ_ONE, only=[a])).check()
    assert reply.extents == {a: [(GRANULE, DIRTY)]}


@rich_modes
def test_bitmaps_are_told_in_the_granularity_that_was_asked_for(exported, mode):
    here = exported("fine", BitmapGranularity="4K")
    client = here.client("fine", mode=mode)
    client.write(5 * 4096 + 1, b"x")
    assert client.status(0, SIZE)[KIND + "fine"] == runs(SIZE, {5}, 4096)


@rich_modes
def test_a_reply_has_at_most_131072_extents_of_a_bitmap(exported, tmpfs_disk, mode):
    n, size = 66_000, 66_000 * 8192
    here = exported("fine", disk=tmpfs_disk(size), size=size, BitmapGranularity="4K")
    client = here.client("fine", mode=mode)
    for first in range(0, n, 100):
        for cookie in [client.send_write(8192 * i, b"x") for i in range(first, first + 100)]:
            client.wait(cookie).check()
    told = client.status(0, size)[KIND + "fine"]
    assert told == [(4096, DIRTY), (4096, CLEAN)] * 65_536
    assert whole_map(client, KIND + "fine", size) == [(4096, DIRTY), (4096, CLEAN)] * n


@pytest.mark.parametrize("size", [5 * GIB, 16 * TIB])
def test_an_extended_status_covers_more_than_4_gib(exported, tmpfs_disk, size):
    here = exported("big", disk=tmpfs_disk(size), size=size)
    client = here.client("big")
    client.write(size - GRANULE, b"x")
    assert client.status(0, size) == {
        KIND + "big": [(size - GRANULE, CLEAN), (GRANULE, DIRTY)]}
    assert client.status(0, size, REQ_ONE) == {KIND + "big": [(size - GRANULE, CLEAN)]}


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_the_map_of_16_tib_takes_less_than_a_second(exported, tmpfs_disk, dense):
    size = 16 * TIB
    here = exported("big", disk=tmpfs_disk(size), size=size, BitmapRegion="16G")
    client = here.client("big")
    if dense:
        client.trim(0, size)
        truth = [(size, DIRTY)]
    else:
        apart = size // 300 // GRANULE * GRANULE
        for number in range(300):
            client.write(number * apart, b"x")
        truth = [(GRANULE, DIRTY), (apart - GRANULE, CLEAN)] * 300
        truth[-1] = (size - 299 * apart - GRANULE, CLEAN)
    began = time.monotonic()
    told = whole_map(client, KIND + "big", size)
    taken = time.monotonic() - began
    assert told == truth
    assert taken < 1, f"the map took {taken:.2f} s"


# While bitmaps come and go


@rich_modes
def test_a_bitmap_that_is_added_shows_to_the_next_client(two, mode):
    before = two.client("a", mode=mode)
    two.bitmap("add", "later")
    assert two.listed(KIND) == {KIND + "a", KIND + "ab", KIND + "later"}
    after = two.client("later", mode=mode)
    before.write(0, b"x")
    assert after.status(0, SIZE) == {KIND + "later": runs(SIZE, {0})}
    assert before.status(0, SIZE) == {KIND + "a": runs(SIZE, {0})}


def test_a_client_that_is_negotiating_gets_in_while_bitmaps_come_and_go(two):
    options, selected = two.options(), two.options()
    assert options.info("disk", [INFO_BLOCK_SIZE]).size == SIZE
    selected.set_contexts("disk", [KIND + "a"])
    two.bitmap("add", "later")
    two.bitmap("remove", "ab")
    assert options.go("disk").size == SIZE
    assert selected.go("disk").size == SIZE


@pytest.mark.parametrize("verb", ["remove ab", "rename ab other"])
def test_a_bitmap_that_went_between_set_and_go_is_refused_and_then_forgotten(two, verb):
    options = two.options()
    options.set_contexts("disk", [KIND + "a", KIND + "ab"])
    two.bitmap(*verb.split())
    refusal = options.option(OPT_GO, go_payload("disk"))[-1]
    assert refusal.type == REP_ERR_PLATFORM and "changed" in refusal.text
    assert options.set_contexts("disk", [KIND + "ab"]) == {}
    assert set(options.set_contexts("disk", [KIND + "a"])) == {KIND + "a"}
    assert options.go("disk").size == SIZE


def test_after_a_restart_no_bitmap_is_taken_for_another_that_has_its_number(exported):
    here = exported("a", "b", "c")
    here.bitmap("remove", "a")
    options = here.options()
    chosen = options.set_contexts("disk", [KIND + "b"])
    here.kill_export()
    refusal = options.option(OPT_GO, go_payload("disk"))[-1]
    again = here.options().set_contexts("disk", [KIND + "b", KIND + "c"])
    assert again[KIND + "c"] == chosen[KIND + "b"], "else this shows nothing"
    assert refusal.type == REP_ERR_PLATFORM
    assert options.set_contexts("disk", [KIND + "b"]) == {KIND + "b": again[KIND + "b"]}


def leave_by_disconnect(here, client):
    assert client.disconnect()


def leave_by_hanging_up(here, client):
    for _ in range(20):
        client.send_status(0, SIZE)
    client.close()


def leave_by_kick(here, client):
    here.ctl("kick", "disk", "--all")


def leave_by_drain(here, client):
    here.ctl("drain", "disk")
    here.ctl("resume", "disk")


@pytest.mark.parametrize("leave", [leave_by_disconnect, leave_by_hanging_up, leave_by_kick,
                                   leave_by_drain], ids=lambda leave: leave.__name__[6:])
def test_a_bitmap_is_busy_from_its_selection_until_the_client_has_left(two, leave):
    client, other = two.client("a"), two.client("a", "ab")
    assert "a" in two.bitmap("remove", "a", status=1).stderr
    other.close()
    wait_until(lambda: two.can_remove("ab"), "ab to be free")
    assert "a" in two.bitmap("remove", "a", status=1).stderr
    assert client.status(0, SIZE) == {KIND + "a": [(SIZE, CLEAN)]}
    leave(two, client)
    wait_until(lambda: two.can_remove("a"), "a to be free")
    assert two.listed(KIND) == set()


def test_clients_that_leave_in_the_middle_of_the_handshake_keep_no_bitmap_busy(two):
    for _ in range(50):
        options = two.server.options()
        options.structured_reply()
        options.set_contexts("disk", [KIND + "a", KIND + "ab"])
        options.send_option(OPT_GO, go_payload("disk"))
        options.close()
    wait_until(lambda: two.can_remove("a") and two.can_remove("ab"), "both to be free")


def negotiator_of(here):
    """A negotiator of ours besides the real one."""
    return contextlib.closing(channel.Negotiator(here.ctl.runtime / "disk.channel"))


@pytest.fixture
def promised(two):
    """(a negotiator of ours, its grant of a place with the bitmap "a")"""
    with negotiator_of(two) as negotiator:
        negotiator.read_offer()
        numbers = {context.name: context.id for context in negotiator.contexts}
        grant = negotiator.granted(contexts=[numbers[KIND + "a"]])
        assert not two.can_remove("a")
        yield negotiator, grant


def test_a_place_that_is_abandoned_keeps_no_bitmap_busy(two, promised):
    negotiator, grant = promised
    negotiator.send(channel.Record(channel.ABANDON, token=grant.token))
    wait_until(lambda: two.can_remove("a"), "a to be free")


def test_a_negotiator_that_leaves_keeps_no_bitmap_busy(two, promised):
    promised[0].close()
    wait_until(lambda: two.can_remove("a"), "a to be free")


def test_a_place_that_nobody_comes_for_keeps_no_bitmap_busy(two, promised, only_long):
    wait_until(lambda: two.can_remove("a"), "a to be free", PATIENCE + 10)


def test_a_place_with_a_bitmap_that_is_not_there_is_refused_and_keeps_none_busy(two):
    with negotiator_of(two) as negotiator:
        negotiator.read_offer()
        numbers = [context.id for context in negotiator.contexts]
        negotiator.refused("offer-stale", contexts=[*numbers, 77])
        assert two.can_remove("a") and two.can_remove("ab")


def test_every_negotiator_is_told_of_bitmaps_that_come_and_go(two):
    with negotiator_of(two) as negotiator:
        number = negotiator.read_offer().number
        two.bitmap("add", "later")
        assert negotiator.read_offer().number > number
        assert KIND + "later" in [context.name for context in negotiator.contexts]
        stale = negotiator.offer.number - 1
        negotiator.refused("offer-stale", offer=stale)
        two.bitmap("remove", "later")
        negotiator.read_offer()
        assert KIND + "later" not in [context.name for context in negotiator.contexts]


@rich_modes
def test_a_bitmap_removed_by_force_is_never_told_to_be_clean(two, mode):
    client = two.client("ab", mode=mode)
    client.write(0, b"x" * MIB)
    two.bitmap("remove", "ab", "--force")
    try:
        reply = client.wait(client.send_status(0, SIZE))
        assert reply.error == EIO and "removed" in reply.sentence
    except (Closed, BrokenPipeError, ConnectionResetError):
        pass
    assert two.listed(KIND) == {KIND + "a"}


def test_the_list_of_clients_names_the_bitmaps_that_they_selected(two):
    two.client("ab", "a", also=[BASE_ALLOCATION])
    (row,) = two.ctl.json("clients", "-o", "contexts")
    assert sorted(row["contexts"]) == [BASE_ALLOCATION, KIND + "a", KIND + "ab"]


# Real clients


@pytest.fixture
def dirtied(two):
    """Some of it dirty; with the truth as .runs."""
    client = two.client()
    granules = {1, 2, 3, 50, SIZE // GRANULE}
    for number in granules:
        client.write(number * GRANULE, b"x")
    two.runs = runs(SIZE, granules)
    return two


def test_nbdinfo_lists_and_maps_bitmaps(dirtied):
    nbdinfo = needs_program("nbdinfo")
    told = json.loads(subprocess.check_output([nbdinfo, "--json", dirtied.uri], text=True,
                                              timeout=PATIENCE))
    assert set(told["exports"][0]["contexts"]) == EVERY
    rows = json.loads(subprocess.check_output([nbdinfo, "--json", f"--map={KIND}a", dirtied.uri],
                                              text=True, timeout=PATIENCE))
    assert [(row["length"], row["type"]) for row in rows] == dirtied.runs
    assert {row["description"] for row in rows} == {"clean", "dirty"}


def test_qemu_img_maps_a_bitmap(dirtied):
    """It shows as data what is clean, and as absent what is dirty."""
    qemu_img = needs_program("qemu-img")
    rows = json.loads(subprocess.check_output(
        [qemu_img, "map", "--output=json", "--image-opts",
         f"driver=nbd,server.type=unix,server.path={dirtied.server.socket},export=disk,"
         f"x-dirty-bitmap={KIND}a"], text=True, timeout=PATIENCE))
    assert [(row["length"], int(not row["data"])) for row in rows] == dirtied.runs


def test_libnbd_reads_several_contexts_at_once(dirtied):
    nbd = pytest.importorskip("nbd", reason="python3-libnbd is not installed")
    handle = nbd.NBD()
    for context in (BASE_ALLOCATION, KIND + "ab", KIND + "a"):
        handle.add_meta_context(context)
    handle.connect_uri(dirtied.uri)
    assert handle.can_meta_context(KIND + "a") and handle.can_meta_context(KIND + "ab")
    told = {}
    handle.block_status(SIZE, 0, lambda context, offset, entries, error:
                        told.__setitem__(context, list(zip(entries[::2], entries[1::2]))))
    handle.shutdown()
    assert set(told) == {BASE_ALLOCATION, KIND + "a", KIND + "ab"}
    assert told[KIND + "a"] == told[KIND + "ab"] == dirtied.runs
