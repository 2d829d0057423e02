"""Pictures in: cameras, files and photos, buffered and scheduled; and pictures out: drawings and clips."""
