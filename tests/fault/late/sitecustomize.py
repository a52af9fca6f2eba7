"""On the Python path of a run with wrong clocks: each worker gets a clock of its own."""

import os

DAYS = (9, -400, 3000, -1)

if "SUBMITIT_LOCAL_LOCALID" in os.environ and "LMBATCH_TEST_SHIFT" in os.environ:
    os.environ["LMBATCH_TEST_SHIFT"] = str(86_400 * DAYS[os.getpid() % len(DAYS)])  # the library looks at every call
