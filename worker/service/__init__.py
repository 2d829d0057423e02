"""One worker as a process: built from its configuration, run, shown, stopped."""
