"""Who is known: people and their samples, kept in a folder or in Redis, searched and changed."""
