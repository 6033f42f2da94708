"""``python -m controller`` is ``operando``."""

import sys

from controller.cli import main

sys.exit(main())
