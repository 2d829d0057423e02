"""facestream: cameras in, sightings of people out. See ``worker/recognition/pipeline.py`` for the whole line."""

__version__ = "0.1.0"
