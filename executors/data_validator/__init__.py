"""The DataValidator."""
