"""Merge, convert, quantize, and the release folder."""
