"""What finds faces: one module for each detector, imported only when it is chosen."""
