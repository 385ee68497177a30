"""`python -m clozeworks` is the command line."""

from clozeworks.cli import main

if __name__ == "__main__":
    main()
