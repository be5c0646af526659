"""One file per task. A step takes and returns payloads, and finds what an earlier try of the same task left, so that a
retry resumes.

A step imports what it needs: only training, trials, evaluation and a comparison with an older champion load torch.
"""
