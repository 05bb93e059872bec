"""Search with a model: documents to embeddings, embeddings to the nearest documents."""
