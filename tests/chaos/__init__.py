"""Random faults while DAG runs go on, then the checks of what must hold: `make chaos`, `make chaos-compose`."""
