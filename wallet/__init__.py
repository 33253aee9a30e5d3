"""The books: accounts, journal entries, postings, holds, statements and their proof.

Money moves only through `post_entries` in `wallet/sql/`; nothing here knows orders, channels or
risk.
"""
