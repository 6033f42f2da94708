"""Found by every Python whose ``PYTHONPATH`` names this folder; does nothing without its variable."""

import os
import sys

if os.environ.get("OPERANDO_TEST_SWITCH"):
    from hil_tests.durability.switch import install

    install(os.environ["OPERANDO_TEST_SWITCH"], sys.orig_argv)
