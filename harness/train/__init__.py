"""The gated trainer."""
