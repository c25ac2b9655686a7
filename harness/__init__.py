"""An evaluation-first harness: suites gate a trainer, and the file that ships is the file that passed."""

__version__ = "0.1.0"
