"""A run: its folder, its history, its models, what may be done with it, and which starts next."""
