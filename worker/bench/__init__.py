"""How fast this machine is, beside the peers that are installed; see ``facestream bench``.

Each side runs in a process of its own, because the thread pools of two sides would disturb each other in one process.
The sides take turns in one run, so that everything else the machine does affects all of them alike.
"""
