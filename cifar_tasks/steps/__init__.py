"""A file a task. Each step takes and returns JSON values (URIs, digests, run ids, small numbers) and finds what an
earlier try of the same task left, so that a retry goes on instead of starting over.

Here the pure code meets storage, tracking and registry; the DAG and `cifar run` call these and nothing below them.
Nothing is imported here: a step loads what it needs, and only training and evaluation need torch.
"""
