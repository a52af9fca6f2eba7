"""`make recipe NAME=s0 SIZE=small`: five published ways to train a language model, each from raw text to inference.

::

    table ──▶ Recipe (names of configs, what the published way throws away, how text is made)
                 │ SIZE                                      small: configs/*/NAME_small.yaml where there is one
                 ▼
    run ──▶ corpus → tokenizer → shards → tokens kept → training → export → inference     all by lmbatch's own verbs

See README.md for what each of the published ways did, and what is done here instead.
"""
