"""What holds for every test."""

import os

from hypothesis import settings

# How long an example takes says how busy the machine is, not whether it holds.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before anything imports torch. Tiny models gain nothing from threads, and two test processes whose threads spin while
# they wait take the cores from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
