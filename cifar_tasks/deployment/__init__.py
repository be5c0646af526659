"""Running the product: the embedded stack, the compose deployment, the doctor."""
