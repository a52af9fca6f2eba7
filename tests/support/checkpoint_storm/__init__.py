"""A seeded storm over the checkpoints of tiny training runs: each run meets a fault that is caused for real.

::

    seed ─▶ storm ──▶ fault (faults/) ──▶ attempt, attempt, …  forked processes that really train, die and resume
                          │                    │
                          │                    ▼
                          └─ damage, full   run folder + mirror ──survey──▶ judge ──▶ outcome ──▶ table, JSON
                             disk, bad
                             store, …          the run that nothing disturbed ──┘

``python -m support.checkpoint_storm --runs 200`` (`make test-storm`) is the long form, ``--short`` the one that the
suite runs. A fault causes what it says and gives back control; the storm then resumes the run until it is done, and the
judge compares the whole of it with the undisturbed one, to the bit. What ought to be found on a resume, the judge works
out by itself from receipts and sha256, and not with the code that is under test.
"""
