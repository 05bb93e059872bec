"""Training: `train` is the loop, read it first; the rest are its parts."""
