"""Redis in all its forms: clients, keys, what its errors mean."""
