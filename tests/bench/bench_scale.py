"""Preprocessing at scale without its work: how long plan, status, the driver and merge take when there are many tasks.

    python tests/bench/bench_scale.py [--receipts 100000] [--files 400] [--s3-receipts 2000] [--without-s3]

- plan: 400 files of 0.55 GB, each with a real head of records in WuDao's form and nothing behind it (a sparse file):
  listing, probing and cutting are real, and so is what is stored. 60 million documents would be 150,000 in each file.
- status, the driver's start on a finished store, and merge: a local store with one real receipt (a task of the same
  corpus, really tokenized) repeated under every task's name.
- the same status over object storage (a SeaweedFS that the script starts, on the same machine).

Each row is a process of its own: wall time, CPU time and the most memory that it held. Import is part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))
FILE_BYTES = 550_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receipts", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--s3-receipts", type=int, default=2000)
    parser.add_argument("--without-s3", action="store_true")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part[0]](options.part[1])))
        return
    print("| what | seconds | CPU-seconds | peak memory | |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as name:
        base = Path(name)
        write_raw(base, options.files)
        row(f"plan of {options.files} files of 0.55 GB, tasks of 512 MiB", "plan", f"{base}:512MiB")
        row(f"plan of {options.files} files of 0.55 GB, tasks of 2 MiB", "plan", f"{base}:2MiB")
        store = base / "store"
        fill(base, str(store), options.receipts)
        row(f"status over {options.receipts:,} receipts", "status", str(store))
        row(f"driver's start: plan and {options.receipts:,} receipts read", "driver", str(store))
        row(f"merge of {options.receipts:,} receipts", "merge", str(store))
        if not options.without_s3:
            over_s3(base, options.s3_receipts)


def row(what: str, part: str, place: str) -> None:
    """Run one part in a fresh process, and print what it took."""
    command = [sys.executable, __file__, "--part", part, place]
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds, after = time.monotonic() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = json.loads(done.stdout)
    print(f"| {what} | {seconds:.1f} | {cpu:.1f} | {said['memory'] / 2**20:.0f} MiB | {said['note']} |", flush=True)


def answer(note: str) -> dict[str, object]:
    """What a part says; VmHWM, as a child's ru_maxrss begins at its parent's peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return {"note": note, "memory": next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM:"))}


def part_plan(place: str) -> dict[str, object]:
    """List, probe, cut; and the stored form."""
    from lmbatch.preprocess import make_plan

    base, _, size = place.rpartition(":")
    plan, _ = make_plan(config(Path(base), size))
    stored = plan.model_dump_json(indent=1).encode()
    return answer(f"{len(plan.tasks):,} tasks, plan.json {len(stored) / 1e6:.1f} MB")


def part_status(place: str) -> dict[str, object]:
    """As `lmbatch status` does."""
    from lmbatch.report import store_status
    from lmbatch.store import open_store

    status = store_status(open_store(place))
    return answer(f"{status.tasks_done:,} tasks done, {status.tokens:,} tokens")


def part_driver(place: str) -> dict[str, object]:
    """What the driver reads before it submits anything, and what a worker reads of the plan."""
    from lmbatch.preprocess import Tally, list_finished, load_plan, read_facts
    from lmbatch.store import open_store

    store, tally = open_store(place), Tally()
    plan = load_plan(store)
    for facts in read_facts(store, list_finished(store, {task.id for task in plan.tasks})):
        tally.add(facts)
    return answer(f"{tally.tasks:,} of {len(plan.tasks):,} tasks done")


def part_merge(place: str) -> dict[str, object]:
    """Read every receipt whole, check them against the plan, write the manifest."""
    from lmbatch.preprocess import load_plan, merge
    from lmbatch.store import MANIFEST_KEY, open_store

    store = open_store(place)
    manifest = merge(store, load_plan(store))
    return answer(f"{len(manifest.shards):,} shards, manifest.json {store.info(MANIFEST_KEY).size / 1e6:.1f} MB")


PARTS: dict[str, Callable[[str], dict[str, object]]] = {
    "plan": part_plan,
    "status": part_status,
    "driver": part_driver,
    "merge": part_merge,
}


def config(base: Path, task_bytes: str):  # type: ignore[no-untyped-def]
    """The config of the simulated corpus."""
    from support.wudao import config_for

    return config_for(base, tasks={"bytes": task_bytes})


def write_raw(base: Path, files: int) -> None:
    """Files as large as WuDao's: half a megabyte of records of its mean size (3.4 KB), then nothing."""
    from support.wudao import record_of, text_of, write_tokenizer

    write_tokenizer(base / "tok")
    (base / "raw").mkdir()
    records = [
        record_of(number) | {"content": "".join(map(text_of, range(number, number + 9)))} for number in range(160)
    ]
    head = json.dumps(records, ensure_ascii=False)[:-1].encode()
    assert 400_000 < len(head) < 700_000
    for number in range(files):
        with (base / "raw" / f"part-2021{number:06d}.json").open("wb") as file:
            file.write(head + b",")
            file.truncate(FILE_BYTES)


def fill(base: Path, place: str, receipts: int) -> None:
    """A plan of about so many tasks, and a receipt for each: a real one, under every name."""
    from lmbatch.preprocess import make_plan, store_plan
    from lmbatch.store import open_store

    files = len(list((base / "raw").iterdir()))
    plan, tokenizer = make_plan(config(base, str(-(-files * FILE_BYTES // receipts))))
    store = open_store(place)
    store_plan(store, plan, tokenizer)
    receipt = real_receipt(base) | {"plan": plan.fingerprint}
    local = store.local_path("receipts")

    def write(number: int) -> None:
        task = plan.tasks[number]
        (piece,) = task.pieces
        place = {"path": plan.files[piece.file].path, "start": piece.start, "end": piece.end,
                 "first_position": piece.start, "end_position": piece.end}  # fmt: skip
        mine = receipt | {"task": task.id, "input_bytes": piece.bytes, "seconds": 1 + number % 97}
        mine["pieces"] = [receipt["pieces"][0] | place]  # type: ignore[index]
        data = json.dumps(mine, ensure_ascii=False, indent=1).encode()
        if local is None:
            store.put(f"receipts/{task.id}.json", data)
        else:  # without the fsync of each, which would take an hour
            (local / f"{task.id}.json").write_bytes(data)

    if local is not None:
        local.mkdir(parents=True)
    with ThreadPoolExecutor(1 if local else 16) as pool:
        list(pool.map(write, range(len(plan.tasks))))


def real_receipt(base: Path) -> dict[str, object]:
    """The receipt of a real task over two thousand real records."""
    from lmbatch.preprocess import run_task
    from support.drive import prepare
    from support.wudao import config_for, write_files

    small = base / "small"
    if not small.exists():
        write_files(small / "raw", files=1, documents=2000)
    settings = config_for(small, tokenizer={"path": str(base / "tok")}, tasks={"bytes": "1GiB"},
                          store=str(small / f"store-{os.urandom(4).hex()}"))  # fmt: skip
    store, raw, plan, encoder = prepare(settings)
    receipt = run_task(store, raw, plan, plan.tasks[0], encoder, small / "spool")
    assert receipt is not None
    return receipt.model_dump(mode="json")


def over_s3(base: Path, receipts: int) -> None:
    """The same on a real server: what each receipt costs is a request."""
    from support.scripts import ROOT, load_script

    server = load_script(ROOT / "cluster" / "s3_server.py").S3Server(base / "s3")
    server.start()
    try:
        os.environ.update(server.settings.environment)
        uri = f"{server.settings.uri}/scale"
        fill(base, uri, receipts)
        row(f"status over {receipts:,} receipts on S3", "status", uri)
        row(f"merge of {receipts:,} receipts on S3", "merge", uri)
    finally:
        server.stop(wipe=True)


if __name__ == "__main__":
    main()
