"""CLIP models: found by name, loaded with open_clip, used to encode."""
