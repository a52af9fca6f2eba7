"""``python -m lmbatch`` is the console command."""

from lmbatch.cli import main

if __name__ == "__main__":
    main()
