"""A swarm of real processes with real sockets, and all that can go wrong with them.

``zygote`` is a warm process that peers, relays, the proxy and the hostile member are forked from; ``schedule``
says what goes wrong when; ``runner`` does it; every process writes a ``history``, which ``verdict`` judges.
"""
