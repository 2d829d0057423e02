"""The steps from each layout to the next one, run by Alembic. A step never changes once it was released."""
