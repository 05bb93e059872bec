"""Loggers: they are told what a run's history is told, and decide nothing."""
