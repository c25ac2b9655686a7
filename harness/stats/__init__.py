"""The arithmetic of the gate: numpy and scipy only."""
