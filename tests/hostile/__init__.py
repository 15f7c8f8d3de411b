"""What tests/corpus holds, by kind; tests/make_corpus.py writes it."""
