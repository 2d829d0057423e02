"""What is remembered of past sightings, and the pictures of them that are kept."""
