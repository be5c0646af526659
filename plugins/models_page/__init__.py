"""The page "Models" in Airflow: model versions, two of them side by side, the history of promotions."""
