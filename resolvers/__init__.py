"""One thin function for each root field: who asks, one call into the domain, one view.

Nothing is decided here but who may ask; whose rows come through is decided again by the domain and
by PostgreSQL.
"""
