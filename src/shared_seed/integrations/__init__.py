"""The frameworks: each module here is the only importer of its framework."""
