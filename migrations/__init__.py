"""The database's shape: numbered migrations, the guards in SQL, and the functions beside their
packages.
"""
