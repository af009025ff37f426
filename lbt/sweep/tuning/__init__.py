"""Tuning with equal effort: spaces, quasi-random trials from them, and the runs of what was chosen."""

# Below five seeds a rank interval is as wide as all differences seen, and the smallest two-sided p-value of a rank test
# (0.029 at 4 against 4) is lost in any correction for two comparisons.
FEWEST_SEEDS = 5
