"""The parts of benchmarks/fuzz.py: a small run, its valid bytes, what takes in damaged ones, and the damage."""
