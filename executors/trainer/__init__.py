"""The Trainer."""
