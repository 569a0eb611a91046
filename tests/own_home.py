"""A home folder of each test process's own, which no test may read from or write to.

Imported before anything that looks for its folders when it is imported itself.
"""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

# Where libraries look first; without these all of them look under the home folder, where a test is caught writing.
_ELSEWHERE = (
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_XET_CACHE", "HF_ASSETS_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE"),
    *("HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "DIFFUSERS_CACHE", "TORCH_HOME", "TRITON_CACHE_DIR"),
    *("MPLCONFIGDIR", "NUMBA_CACHE_DIR", "SCIKIT_LEARN_DATA", "SEABORN_DATA", "STATSMODELS_DATA", "LIBROSA_DATA_DIR"),
    *("NLTK_DATA", "PYTHONUSERBASE", "IPYTHONDIR"),
)

# ONNX Runtime writes here from a thread of its own once it is imported, and has no setting for the place.
_ONNXRUNTIME = Path(".cache/Microsoft")


def _make() -> Path:
    home = Path(tempfile.mkdtemp(prefix="crossguard-tests-home-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    # The Adversarial Robustness Toolbox writes this when it is imported, and has no other setting for the place.
    art = home / ".art"
    (art / "data").mkdir(parents=True)
    (art / "config.json").write_text(json.dumps({"ART_DATA_PATH": str(art / "data")}))
    for name in _ELSEWHERE:
        os.environ.pop(name, None)
    os.environ["HOME"] = os.environ["USERPROFILE"] = str(home)
    # Drawn pictures are kept in the checkout, for all processes of this run and for the next run.
    os.environ.setdefault("CROSSGUARD_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "crossguard"))
    return home


def _content() -> set[Path]:
    found = {path.relative_to(HOME) for path in HOME.rglob("*")}
    return {path for path in found if path not in _ONNXRUNTIME.parents and not path.is_relative_to(_ONNXRUNTIME)}


HOME = _make()
_AT_FIRST = _content()


def check_home() -> None:
    """Fail if anything lies in the home folder that the start of the test run did not put there; take it away."""
    strange = sorted(_content() - _AT_FIRST)
    for path in strange:
        found = HOME / path
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found, ignore_errors=True)
        else:
            found.unlink(missing_ok=True)
    assert not strange, f"Expected nothing in the home folder, but found {', '.join(map(str, strange))}."
