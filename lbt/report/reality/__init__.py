"""The reality check: what tuning with equal effort chose, how the choices compare, and the verdict."""
