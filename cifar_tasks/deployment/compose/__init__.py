"""What runs in the containers of docker-compose.yaml: the start of services, the set-up, the copy of the buckets."""

BUCKETS = ("cifar", "mlflow", "logs")
