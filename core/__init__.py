"""What every package needs and none owns: money, ids, clock, errors, phases, outbox, audit.

Nothing here knows an order, a customer or a channel, and nothing here imports another package of
ours.
"""
