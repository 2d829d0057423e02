"""Faces in a picture, and the vector of each: detectors, quality, alignment, networks and what runs them."""
