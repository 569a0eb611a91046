"""Build what is published: `python tools/release.py --url https://HOST/OWNER/crossguard --out dist`.

An index shows the README and follows no relative links, and a checkout knows no address of its own. So this takes the
committed files, makes the README's links absolute, adds the project's addresses to its metadata, and builds the source
distribution and the wheel from them.
"""

import argparse
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")


def absolute(readme: str, url: str) -> str:
    """Return a README with every relative link and picture at an address below `url`."""

    def whole(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        return f"{picture}[{text}]({url}/{'raw' if picture else 'blob'}/main/{target})"

    return _LINK.sub(whole, readme)


def addresses(url: str) -> str:
    """Return the metadata's table of addresses."""
    pages = {
        "Homepage": url,
        "Documentation": f"{url}/blob/main/docs/index.md",
        "Source": url,
        "Issues": f"{url}/issues",
        "Changelog": f"{url}/blob/main/CHANGELOG.md",
    }
    return "[project.urls]\n" + "".join(f'{name} = "{page}"\n' for name, page in pages.items())


def build(url: str, out: Path) -> list[Path]:
    """Build both distributions of the committed files into a folder.

    Returns:
        The files.
    """
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(tree, filter="data")
        readme, metadata = tree / "README.md", tree / "pyproject.toml"
        readme.write_text(absolute(readme.read_text(encoding="utf-8"), url), encoding="utf-8")
        text = metadata.read_text(encoding="utf-8")
        metadata.write_text(text.replace("[project.scripts]", f"{addresses(url)}\n[project.scripts]"), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "build", "--outdir", str(out.resolve()), str(tree)], check=True)
    return sorted(out.iterdir())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="of the repository, without a slash at its end")
    parser.add_argument("--out", type=Path, default=Path("dist"))
    given = parser.parse_args()
    for file in build(given.url, given.out):
        print(file)
