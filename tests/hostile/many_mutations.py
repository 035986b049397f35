"""Many mutated inputs of each kind, each read in a process of its own, and a table of what became of them.

    python tests/hostile/many_mutations.py --cases 5000 --seed 0 --keep faults/

A case is handled, refused in one line that names the file, or a fault: a traceback, more than 20 seconds, more than 3 GB of
memory, a killed process, or something else than the file says. Exit status 1 where there is a fault.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from helpers.mutated_kind import Kind, outcome  # noqa: E402
from helpers.mutated_models import MODELS  # noqa: E402
from helpers.mutated_sets import SETS  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

MOST_SECONDS, MOST_BYTES = 20, 3 * 2**30


def in_a_child(kind: Kind, folder: Path, data: bytes) -> tuple[str, str]:
    """The outcome, and of a fault its description."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries write there
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES,) * 2)
            signal.alarm(MOST_SECONDS)
            try:
                text = outcome(kind, folder, data)
            except BaseException as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                inside = [f for f in traceback.extract_tb(error.__traceback__) if "/rpgmt/" in f.filename]
                place = f"{Path((inside or [last])[-1].filename).name}:{(inside or [last])[-1].lineno}"
                text = f"FAULT {type(error).__name__} {place} {str(error)[:300]}"
            os.write(writing, text.encode(errors="replace")[:4000])
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return "fault", f"killed by {name}" if name != "SIGALRM" else f"more than {MOST_SECONDS} s"
    return ("fault", text.removeprefix("FAULT ")) if text.startswith("FAULT") or not text else (text, "")


def cases(kind: Kind, number: int, start: int) -> list[tuple[str, str, bytes]]:
    """What became of so many inputs of a kind: outcome, description and the input."""
    found: list[tuple[str, str, bytes]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kind.write(folder)
        sound = (folder / kind.file).read_bytes()
        # In a child too: threads that a library starts here, as hotcoco does, are missing in later ones, which wait for them.
        assert in_a_child(kind, folder, sound) == ("handled", "")

        @seed(start)
        @settings(
            max_examples=number,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(kind.mutate(sound))
        def case(data: bytes) -> None:
            found.append((*in_a_child(kind, folder, data), data))

        case()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", help="this one alone")
    parser.add_argument("--keep", type=Path, help="folder for an input of each fault")
    arguments = parser.parse_args()
    kinds = [kind for kind in (*SETS, *MODELS) if arguments.kind in (None, kind.name)]
    whole = sum(kind.weight for kind in kinds)
    counts: dict[str, Counter[str]] = {}
    faults: Counter[str] = Counter()
    for kind in kinds:
        count = counts.setdefault(f"{kind.name} ({Path(kind.file).name})", Counter())
        for what, why, data in cases(kind, max(1, round(arguments.cases * kind.weight / whole)), arguments.seed):
            count[what] += 1
            if what == "fault":
                line = f"{kind.name}: {' '.join(why.split())[:220]}"
                faults[line] += 1
                if arguments.keep and faults[line] == 1:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    stem = f"{len(faults):03d}-{kind.name.replace(' ', '_')}"
                    (arguments.keep / f"{stem}{Path(kind.file).suffix}").write_bytes(data)
        print(f"{kind.name}: {dict(count)}", file=sys.stderr, flush=True)
    print(f"{'input':58} {'cases':>6} {'handled':>8} {'refused':>8} {'fault':>6}")
    for name, count in {**counts, "all": sum(counts.values(), Counter())}.items():
        print(f"{name:58} {count.total():6} {count['handled']:8} {count['refused']:8} {count['fault']:6}")
    for line, number in faults.most_common():
        print(f"{number:4} × {line}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
