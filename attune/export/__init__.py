"""Formats a tuned model leaves in, each with a reload-and-compare."""
