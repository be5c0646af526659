"""Dataset lines: dataset versions of one growing source, with one frozen test set."""
