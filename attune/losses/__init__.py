"""Training losses and miners by name. `table` knows them without torch, `make` builds them."""
