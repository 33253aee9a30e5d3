"""What runs behind the API: the outbox is dispatched, jobs are run, what is overdue is moved on.

Everything here is one call into the domain; nothing here decides about an order.
"""
