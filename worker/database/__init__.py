"""What must last, in a database: SQLite for one machine, PostgreSQL for a fleet.

- ``address``: what the URL of a PostgreSQL database says.
- ``database``: ``Database``, an open database of either kind: transactions, and errors in one form.
- ``errors``: what the errors of the servers and drivers mean, one line each.
- ``schema``: the tables.
- ``layout``: which layout a database has, and how it gets the newest one; the steps lie in ``migrations``.
- ``backup``: a whole database to a file, and back.
- ``roles``: the SQL that gives three kinds of users the least rights that they need.

Only this package and the packages that keep something (``gallery``, ``history``) use SQLAlchemy.
"""
