"""What a person writes: suites, recipes, gates and devices, loaded from YAML."""
