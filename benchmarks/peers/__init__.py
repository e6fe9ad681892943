"""Other libraries beside taskflow: the same jobs, on the same server, in alternating rounds.

``python -m benchmarks.peers --setup`` installs them in a folder of the user's cache and measures.
"""
