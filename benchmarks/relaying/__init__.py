"""A relay in a process of its own, and what loads it: the parts of ``relay.py`` and ``catchup.py``."""
