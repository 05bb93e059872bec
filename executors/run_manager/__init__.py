"""The RunManager."""
