"""Workers that share cameras: leases, and the cameras that are registered."""
