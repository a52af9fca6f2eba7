"""`make demo`: the whole of lmbatch on one machine. See README.md."""
