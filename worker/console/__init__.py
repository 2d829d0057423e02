"""The pages of the console, for people who open no terminal.

- ``app``: the application: the API, the pages and what they are made with.
- ``pages``: what all pages share: who looks, templates, forms, errors.
- ``entry``: logging in; ``now``, ``past``, ``strangers``, ``people``, ``cameras``, ``health``,
  ``settings``: the pages.
- ``faces``: pictures; ``templates`` and ``static`` lie beside.

A page does what the operation of the API does, by the same functions. Nothing is asked for from elsewhere.
"""
