"""Events on their way to Redis: written down first, delivered once Redis takes them, read back by consumers."""
