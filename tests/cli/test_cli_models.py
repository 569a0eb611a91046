"""`crossguard models`: what a checkpoint is and lacks, and one made whole."""

import json

import pytest
import torch
from typer.testing import CliRunner

import open_clip_files
from crossguard.cli import app
from crossguard.models import load_model
from crossguard.models.described import describe
from shared import make_clip


def run(*arguments):
    return CliRunner().invoke(app, ["models", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    make_clip(0).save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


def test_a_whole_checkpoint(folder):
    told = run("check", folder)
    assert told.exit_code == 0, told.output
    for line in (
        "is: clip (vision-language)",
        "weights: model.safetensors",
        "preprocessing: 16 x 16",
        "loads as it is",
    ):
        assert line in told.output
    found = json.loads(run("check", folder, "--json").output)
    assert found["loads"]
    assert found["parameters"] == sum(p.numel() for p in make_clip(0).network.parameters())
    assert found["sizes"]["context_length"] == 16


def test_what_is_missing_is_named_with_its_option(folder, tmp_path):
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (folder / name).unlink()
    told = run("check", folder)
    assert told.exit_code == 2
    assert "lacks tokenizer: tokenizer= or base=" in told.output
    assert "lacks preprocessing: preprocessing= or base=" in told.output
    make_clip(1).save_pretrained(tmp_path / "base")
    done = run("convert", folder, tmp_path / "made", "--base", tmp_path / "base")
    assert done.exit_code == 0, done.output
    assert describe(tmp_path / "made").loads
    pixels = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        made = load_model(tmp_path / "made").encode_image(pixels)
    torch.testing.assert_close(made, make_clip(0).encode_image(pixels).detach())
    assert run("convert", folder, tmp_path / "other").exit_code == 2


def test_what_does_not_fit_is_named(folder):
    config = json.loads((folder / "config.json").read_text())
    for part, key, value, message in (
        ("vision_config", "num_hidden_layers", 3, "keys are missing"),
        ("text_config", "vocab_size", 7, "instead of"),
    ):
        changed = config | {part: config[part] | {key: value}}
        (folder / "config.json").write_text(json.dumps(changed))
        found = describe(folder)
        assert not found.loads
        assert message in found.problems[0]
    (folder / "config.json").write_text(json.dumps(config))
    open_clip_files.TOKENIZER.save_pretrained(folder)
    assert any("ends texts with id" in problem for problem in describe(folder).problems)
    (folder / "model.safetensors").write_text("<html>")
    assert any("broken" in problem for problem in describe(folder).problems)


def test_parts_and_other_layouts(folder, tmp_path):
    state = open_clip_files.released()
    found = describe(open_clip_files.write(tmp_path / "open", state))
    assert found.loads
    assert found.is_a == "open-clip (vision-language)"
    tower = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    torch.save(tower, tmp_path / "fare_eps_2.pt")
    found = describe(tmp_path / "fare_eps_2.pt")
    assert found.is_a == "weights of an image tower without a config"
    assert found.lacks == ("what it was made from: base=",)
    (folder / "config.json").unlink()
    assert describe(folder).is_a == "weights of both towers without a config"
    with pytest.raises(ValueError, match="Expected a folder, a file of weights or a hub id"):
        describe(tmp_path / "nowhere")
