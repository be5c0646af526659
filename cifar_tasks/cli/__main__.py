"""`python -m cifar_tasks.cli` is the `cifar` command."""

from cifar_tasks.cli.main import main

if __name__ == "__main__":
    main()
