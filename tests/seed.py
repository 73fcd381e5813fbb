# SPDX-License-Identifier: GPL-2.0-or-later
"""Randomness that can be repeated: NBD_EXPORT_TEST_SEED=NUMBER runs a test with that seed."""

import os
import random


def seeded():
    """A generator; its seed is on stdout, which pytest shows of a test that failed."""
    number = int(os.environ.get("NBD_EXPORT_TEST_SEED") or random.randrange(1 << 32))
    print(f"NBD_EXPORT_TEST_SEED={number}")
    return random.Random(number)
