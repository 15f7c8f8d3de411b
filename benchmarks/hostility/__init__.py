"""Hostile peers in a swarm that one process plays: what they do, and on what data."""
