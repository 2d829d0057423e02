"""Classifiers and networks learnt from photos of one's own people."""
