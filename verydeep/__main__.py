"""`python -m verydeep`."""

from verydeep.cli import main

if __name__ == "__main__":
    main()
