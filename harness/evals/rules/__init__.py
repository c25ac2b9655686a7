"""The rules of the gate: what each says of a stage's evidence."""
