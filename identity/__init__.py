"""Who asks: customers, merchants and operators, their keys, tokens, signatures, codes and
permissions.

Not named auth, because in this field an authorization is a reserve on a card. No secret is ever
stored in clear here, logged, or shown by a `repr`.
"""
