"""The WordNet example: what words mean, and the sentences that show it."""
