"""What the product promises about speed, each measured beside what it is compared with, in one run.

`python -m benchmarks` prints the table; docs/benchmarks.md says what the rows mean. They inform and never fail.
"""
