"""``python -m shared_seed`` is ``shared-seed``."""

from shared_seed.cli import main

if __name__ == "__main__":
    main()
