"""The whole chain on footage that it makes itself."""
