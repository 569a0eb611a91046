"""`python -m crossguard.data.refcoco_convert 'refs(unc).p' refs.json`: references as JSON, without the pickle."""

import argparse
import sys

from crossguard.data.refcoco_refs import convert_references


def main(arguments: list[str] | None = None) -> int:
    """Convert one file; returns 0, or 2 with a message on standard error when it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m crossguard.data.refcoco_convert", description=__doc__)
    parser.add_argument("source", help="refs(unc).p as released with RefCOCO, RefCOCO+ and RefCOCOg")
    parser.add_argument("target", help="the JSON file to write")
    given = parser.parse_args(arguments)
    try:
        count = convert_references(given.source, given.target)
    except (ValueError, OSError) as error:
        print(f"error {error}", file=sys.stderr)
        return 2
    print(f"{count} references written to {given.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
