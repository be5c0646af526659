"""What the product promises about speed, each measured beside what it is compared with, in one run.

`.venv/bin/python -m benchmarks` prints the table; docs/benchmarks.md explains the rows. They inform and never fail.
"""
