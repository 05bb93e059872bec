"""Models: found by name, loaded with their library, used to encode."""
