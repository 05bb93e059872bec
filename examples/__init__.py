"""Data and scripts a newcomer runs."""
