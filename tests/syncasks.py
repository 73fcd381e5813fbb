# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of each sync and discard of a disk is the test's to say: the other end of
tests/sync-asks."""

import os
import socket
import threading

from conftest import BUILD, SANITIZERS


class Syncs:
    """`answer("sync", "dsync" or "discard")`, in a thread for each, returns an errno or 0.

    .env    for a program that does its I/O in threads (Engine=threads)
    .seen   what was asked about this disk so far
    """

    def __init__(self, folder, disk, answer=lambda what: 0):
        self.inode = os.stat(disk).st_ino
        self.answer = answer
        self.seen = []
        path = folder / "sync-asks"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        self.env = {
            "LD_PRELOAD": str(BUILD / "tests/sync-asks/sync-asks.so"),
            "NBD_EXPORT_SYNC_ASKS": str(path),
            # The sanitizer's library wants to be the first of all.
            "ASAN_OPTIONS": SANITIZERS["ASAN_OPTIONS"] + ":verify_asan_link_order=0",
        }

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock:
            what, inode = sock.recv(64).decode().split()
            error = 0
            if int(inode) == self.inode:
                self.seen.append(what)
                error = self.answer(what)
            sock.send(str(error).encode())

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
