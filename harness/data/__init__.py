"""From files to records: sources, splits, lineage."""
