"""The ids of the DAGs, as the DAG files, the plugins and the command line name them."""

TRAINING_DAG = "cifar10_training"
PROMOTION_DAG = "cifar10_promotion"
ROLLBACK_DAG = "cifar10_rollback"
DATASET_DAG = "cifar10_dataset"
