"""Speed as ratios: each figure stands beside a floor or a bound measured in the same run.

``python -m benchmarks`` runs all, ``python -m benchmarks memory sqlite --json out.json`` some.
Floors are code in ``floors.py`` and are not tuned.
"""
