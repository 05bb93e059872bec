"""Flows: which executors stand in which order, and how they are started."""
