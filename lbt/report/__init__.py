"""Reads records and writes tables; knows nothing of training."""
