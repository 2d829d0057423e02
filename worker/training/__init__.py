"""Classifiers and networks that learn from photos of one's own people."""
