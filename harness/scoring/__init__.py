"""From an answer to scores."""
