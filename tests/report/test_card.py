"""Model cards: what the hub's own reader finds in them, and publishing without a hub."""

from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, ModelCard
from report_helpers import keep_entries, make_certificate, make_entry
from typer.testing import CliRunner

from crossguard.cli import app
from crossguard.models.publish import push_to_hub
from crossguard.report import certificate_entry
from crossguard.report.card import model_card
from crossguard.runs import RunFolder
from shared import make_clip


@pytest.fixture
def run(tmp_path):
    path = keep_entries(tmp_path / "run", [make_entry(part="clean"), make_entry()])
    with RunFolder.open(path, settings={}) as folder:
        folder.summarise("certificates", "net", certificate_entry(make_certificate(label="net")))
    return path


def test_the_hubs_reader_finds_clean_robust_and_certified_figures(run):
    card = ModelCard(model_card([run], licence="apache-2.0", base_model="owner/base"))
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "owner/base"
    results = card.data.eval_results
    by_name = {result.metric_name: result for result in results}
    clean, robust = by_name["points, clean"], by_name["points, under own (image L-inf 8/255)"]
    assert (clean.metric_value, robust.metric_value) == (80.0, 30.0)
    assert robust.metric_args["threat_model"] == {"image": "L-inf 8/255"}
    assert robust.metric_args["interval_95"] == [29.0, 31.0]
    assert robust.dataset_split == "test"
    certified = by_name["certified accuracy at radii accelerometer 2, gyroscope 5"]
    assert certified.metric_value == 5.0
    assert certified.metric_args["alpha"] == 0.001
    assert sum(result.metric_type == "certified_accuracy" for result in results) == 12
    assert "an upper bound of robustness" in card.text
    assert "| points | 80.0 (79.0–81.0) | 30.0 (29.0–31.0) |" in card.text


def test_one_of_several_models_is_chosen(tmp_path):
    path = keep_entries(tmp_path / "run", [make_entry("a"), make_entry("b")])
    with pytest.raises(ValueError, match="the runs measured a, b: choose one"):
        model_card([path])
    with pytest.raises(ValueError, match=r"one of the measured models \(a, b\), but got 'c'"):
        model_card([path], model="c")
    assert ModelCard(model_card([path], model="b", name="mine")).data.model_name == "mine"


def test_names_are_no_markup(tmp_path):
    nasty = "<script>x</script>|`a\n[x](http://y)"
    text = model_card([keep_entries(tmp_path / "run", [make_entry(nasty)])])
    body = text.split("\n---\n", 1)[1]
    assert "<script" not in body
    assert "](http" not in body
    assert "\n[x]" not in body


def test_the_verb_writes_the_card(run, tmp_path):
    done = CliRunner().invoke(app, ["card", str(run), "--out", str(tmp_path / "README.md")])
    assert done.exit_code == 0, done.output
    assert ModelCard.load(tmp_path / "README.md").data.library_name == "crossguard"
    done = CliRunner().invoke(app, ["card", str(run), "--push", "me/x"])
    assert done.exit_code == 2
    assert "`--push` and `--folder` together" in done.output


class Hub(HfApi):
    """Keeps what would be uploaded."""

    def __init__(self):
        self.made, self.files = [], {}

    def create_repo(self, repo, *, private, exist_ok):
        self.made.append((repo, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        from pathlib import Path

        self.files |= {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/1")

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, commit_message):
        self.files[path_in_repo] = path_or_fileobj
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/2")


def test_a_model_is_published_with_its_card(tmp_path):
    hub = Hub()
    assert push_to_hub(make_clip(), "me/clip", card="# card", private=True, api=hub) == "https://hub/me/clip/2"
    assert hub.made == [("me/clip", True, True)]
    assert hub.files["README.md"] == b"# card"
    assert {"config.json", "model.safetensors"} <= hub.files.keys()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    again = Hub()
    push_to_hub(tmp_path / "m", "me/clip", api=again)
    assert list(again.files) == ["config.json"]
    for model, message in ((tmp_path / "none", "a model's folder"), (3, "with `save_pretrained`")):
        with pytest.raises((ValueError, TypeError), match=message):
            push_to_hub(model, "me/clip", api=hub)
    with pytest.raises(ValueError, match="owner/name"):
        push_to_hub(tmp_path / "m", "a/b/c", api=hub)
