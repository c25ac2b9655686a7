"""One process a job, an append-only journal, run folders."""
