"""Galleries in PostgreSQL, which a fleet shares: each worker has all of it in memory, and follows what others change.

- ``gallery``: ``DatabaseGallery``, the open gallery.
- ``store``: read, changed and replaced, each in one transaction.
- ``follower``: the thread that keeps a worker's copy current.
- ``last_copy``: the copy on disk, for a start while the database is away.
"""
