"""Write tests/golden/rows.json anew: what every task gives under every attack, at tiny size.

    python tools/golden.py [NAME ...]

For changes that are meant. With names, only the cases whose name holds one of them are computed; the others are kept.
`git diff --stat` and the failing test say which cases changed before.
"""

import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "golden")]

import own_home  # noqa: E402, F401, I001  as in the tests: before anything that looks for the home folder
from golden_cases import cases  # noqa: E402
from golden_data import Golden  # noqa: E402
from golden_file import FILE, differences, read, write  # noqa: E402


def main(asked: list[str]) -> None:
    """Compute the cases, say which of them differ from what is stored, and write all."""
    before = read() if FILE.exists() else {}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, call in cases(Golden(Path(folder))).items():
            if name in before and asked and not any(part in name for part in asked):
                found.append((name, before[name]))
                continue
            began = time.perf_counter()
            found.append((name, call()))
            new = name not in before or differences(before[name], found[-1][1])
            print(f"{time.perf_counter() - began:6.2f} s  {'new' if new else 'as before':10} {name}", flush=True)
    write(found)


if __name__ == "__main__":
    main(sys.argv[1:])
