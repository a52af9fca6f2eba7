"""What a training run will take, before it runs: memory, hours, checkpoints, losses. Pure arithmetic, no torch.

::

    TrainConfig, vocabulary ── known_shape (or model/size.py on the meta device) ──▶ ModelShape
    ModelShape, Setting ───── device_memory, host_memory, largest_micro ──▶ parts in bytes
    ModelShape, Device, MFU ─ work ──▶ tokens/s, hours      SaveConfig, Speeds ── saving, goodput ──▶ seconds, steps
                                    └────────────── predict ──▶ Prediction (plan.json of a run) ── compare ──▶ rows

Called by ``cli`` (`lmbatch plan train`), by ``train`` (every start keeps its prediction) and by ``report``, which sets
what was predicted beside what happened.
"""
