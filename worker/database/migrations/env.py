"""Run by Alembic for each upgrade, in the transaction of :func:`worker.database.layout.upgrade`."""

from alembic import context

context.configure(**context.config.attributes["facestream"])
context.run_migrations()
