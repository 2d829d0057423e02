"""The API of the console, ``/api/v1``: what people and programs may do without a terminal.

- ``app``: the application: its operations, its errors, its door.
- ``parts``: what requests share: gallery, history, Redis, pictures, networks.
- ``accounts``: accounts, sessions, tokens; ``access``: who asks, and what they may do.
- ``people``, ``sightings``, ``unknowns``, ``cameras``, ``fleet``, ``settings``, ``keys``, ``live``: the operations.
- ``documents``: what the operations answer with.
- ``paging``: cursors and ETags; ``problems``: errors as RFC 9457 has them; ``door``: hosts, sizes, headers.

The operations call the same functions as the commands do. No worker imports this package.
"""
