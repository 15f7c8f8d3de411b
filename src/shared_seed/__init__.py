"""Fine-tune language models on machines that share nothing but a thin wire."""

__version__ = "0.1.0"
