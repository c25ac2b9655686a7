"""Personal data: where it is, what stands in its place, and the way back for who holds the key."""
