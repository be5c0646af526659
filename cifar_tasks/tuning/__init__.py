"""The search for hyperparameters: what is searched, the study that workers share, and its charts."""
