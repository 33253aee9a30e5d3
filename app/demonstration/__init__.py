"""One day of money, played through the public API, and shown as tables.

Nothing here touches the database, but that the first operator is made the way any first operator
is: by the function of the command line.
"""
