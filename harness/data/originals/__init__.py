"""Public data sets as their authors publish them, read into the records that suites ask for by name."""
