"""What a model is trained for: a task gives the loss of a batch and the scores of a model.

A module of this package that defines `TASKS = {"name": Task}` adds a task.
"""

from lbt.tasks.classification import Classification

TASKS = {"classification": Classification}
