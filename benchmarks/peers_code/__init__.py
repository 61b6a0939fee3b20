"""What `benchmarks.peers` measures, and how it shows it.

`run_*` is a small program a peer, run in the peer's own environment, whose versions are in the text
file of that name. With `rule` it imports nothing of our packages.
"""
