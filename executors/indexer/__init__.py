"""The Indexer: keeps embeddings on disk and finds the nearest."""
