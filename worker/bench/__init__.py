"""How fast this machine is, beside the peers that are installed; see ``facestream bench``.

Each side runs in a process of its own, for their thread pools would disturb each other in one, and the sides take
turns within the one run, so that whatever else the machine does meets all of them.
"""
