"""Critical batch sizes from records: steps to a target against the batch, and branches of a training."""
