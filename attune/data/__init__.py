"""Examples on their way from a user's files to a training batch: read, validate, store, split, pixels, batches."""
