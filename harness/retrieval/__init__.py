"""Documents cut into chunks, found again by their words: what an answer may stand on, and where it is from."""
