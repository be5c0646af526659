"""The entry point: `cifar` and `python -m cifar_tasks.cli`."""

import sys


def main() -> None:
    """What the command needs is imported here, because Ctrl-C may come meanwhile."""
    try:
        from cifar_tasks.cli.main import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(130)  # as of a shell


if __name__ == "__main__":
    main()
