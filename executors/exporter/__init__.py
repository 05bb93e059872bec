"""The Exporter."""
