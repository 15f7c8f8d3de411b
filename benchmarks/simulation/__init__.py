"""A swarm in one process: real protocols, a network and a clock that are made up, everything from one seed.

Nothing here knows what a frame does to a protocol. What is simulated is what lies around it: sockets (links that
are in order, lose publications and open late), processes (a step takes time, peers crash and come back) and the
clock.
"""
