"""facestream: cameras in, sightings of people out. ``worker/recognition/pipeline.py`` shows the whole line."""

__version__ = "0.1.0"
