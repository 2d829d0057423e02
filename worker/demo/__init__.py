"""The whole chain, shown on footage that it makes itself."""
