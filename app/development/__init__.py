"""A whole Purser on one machine, with servers of its own: for developers and for the tests."""
