"""Suite × model → samples → scorecard → verdict."""
