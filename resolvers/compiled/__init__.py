"""A known document as a plan: its selection is walked once, and each request calls the same
resolvers without the executor of graphql-core.

The answers are those of the ordinary engine, byte for byte; whatever a plan cannot promise that
for has no plan and takes the ordinary way. `plan.py` is the way in.
"""
