"""Airflow's tables and the pool `gpu`. Runs in Airflow's environment, at each start before Airflow's components."""


def main() -> None:
    from airflow.cli.cli_parser import get_parser
    from airflow.models.pool import Pool

    from cifar_tasks.settings import Settings

    arguments = get_parser().parse_args(["db", "migrate"])
    arguments.func(arguments)
    # A slot for each training that may run at the same time: the others stay scheduled, and do not wait at a worker.
    Pool.create_or_update_pool("gpu", Settings().gpu_slots, "Trainings at the same time.", include_deferred=False)


if __name__ == "__main__":
    main()
