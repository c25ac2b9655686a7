"""Things that answer: one small Protocol and its implementations."""
