"""Training as pure code: tensors, a configuration and callbacks."""
