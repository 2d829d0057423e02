"""A gallery that a fleet shares through Redis."""
