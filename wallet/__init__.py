"""The books: accounts, journal entries, postings, holds, statements and the proof that they balance.

Money moves only through `post_entries` in `wallet/sql/`; nothing here knows orders, channels or risk.
"""
