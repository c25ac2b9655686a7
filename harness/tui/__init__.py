"""The terminal: reads run folders, loads no model."""
