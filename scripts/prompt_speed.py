"""How fast the full taxonomy is written: python scripts/prompt_speed.py [COUNT] [SEED].

Prints what was written, what was turned down, the coverage table, and the seconds: those on the
clock, and those of the processor, which other work on the machine does not change.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from interloom.construct import prompts, store, taxonomy, taxonomy_prompts


def main(count: int = 40_000, seed: int = 0) -> None:
    clock, processor = time.perf_counter(), time.process_time()
    full = taxonomy.load()
    lost: Counter[str] = Counter()
    tally = prompts.Tally()
    texts: set[str] = set()

    def checked():
        for draft in tally.counted(taxonomy_prompts.drafts(full, count, seed, lost)):
            texts.add(draft.text)
            yield draft

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.parquet"
        store.write_table(path, prompts.rows(checked()), prompts.prompt_schema(), {})
        size = path.stat().st_size
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    entries = sum(len(bank.entries) for bank in full.banks.values())
    lines = tally.coverage.lines()
    print(tally.coverage.table())
    print(f"{len(full.categories)} categories, {len(full.subcategories)} sub-categories, ", end="")
    print(f"{len(full.templates)} templates, {len(full.banks)} banks with {entries} entries")
    print(f"{tally.count} requests, {len(texts)} different texts, {size / 1e6:.1f} MB of Parquet")
    print(f"turned down: {dict(lost)}; smallest share {min(e.share for e in lines):.2%}")
    print(f"{clock:.1f} s on the clock, {processor:.1f} s of processor time")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
