"""What the page on scaling says of launchers holds."""

import re
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_torchrun_takes_the_commands_of_the_page_as_they_are():
    commands = [line.split() for line in re.findall(r"^    torchrun (.*)$", PAGE, re.M)]
    assert len(commands) >= 2
    for words in commands:
        read = get_args_parser().parse_args(words)
        assert read.training_script == "crossguard"
        assert read.training_script_args == words[words.index("crossguard") + 1 :]


def test_without_the_dashes_torchrun_takes_the_run_for_its_own(capsys):
    with pytest.raises(SystemExit):
        get_args_parser().parse_args(["--no-python", "crossguard", "evaluate", "x", "--run", "y"])
    assert "ambiguous option: --run" in capsys.readouterr().err
