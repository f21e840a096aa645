"""Pages of pictures: what was retrieved, what losses disagree on, and maps of the embeddings."""
