"""One class a screen: what it reads, what it shows, and what its keys do."""
