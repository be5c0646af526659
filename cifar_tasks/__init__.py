"""The work behind the DAGs, as a plain library and the `cifar` command. Never imports Airflow."""
