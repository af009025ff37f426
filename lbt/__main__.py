"""`python -m lbt`, for a source tree that is not installed."""

import sys

from lbt.cli import main

sys.exit(main())
