"""Rules that tell somebody who was seen, kept in the database, carried out once for the whole fleet.

- ``rules``: what a rule says, and which events it is about.
- ``book``: rules and alerts in the database; what keeps an alert from being lost or sent twice.
- ``watch``: the threads that read events and deliver alerts.
- ``trial``: a test message to the receivers of a rule.
- ``delivery``: one alert to one receiver. ``apprise_child`` is the process that runs Apprise.
"""
