"""From a situation to a recipe on disk: what records can show, what a run will take, a project to begin with."""
