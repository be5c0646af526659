"""The models that come with the product, one module each with its `SPEC`: a file here is found by the registry."""
