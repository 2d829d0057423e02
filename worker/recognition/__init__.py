"""From faces to who is there: tracks, sightings, verdicts; the pipeline is the whole line."""
