"""Large-batch training: optimizers, sweeps, records and tables."""
