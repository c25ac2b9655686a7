"""Verdicts in the formats of other tools: JUnit for CI, Markdown for a pull request."""
