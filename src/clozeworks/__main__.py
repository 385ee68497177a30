"""The command `clozeworks`, which is also `python -m clozeworks`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded leaves without a traceback."""
    try:
        from clozeworks import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
