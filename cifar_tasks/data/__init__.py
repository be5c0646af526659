"""Images from any source to an immutable, verified dataset version: `open_source`, `prepare`, `load_split`."""
