"""The command line as a user meets it, for any test to call."""

import re

from typer.testing import CliRunner

from crossguard.cli import app


def invoke(*arguments, code=0):
    """Run `crossguard` with some arguments and check its exit code."""
    result = CliRunner().invoke(
        app, [str(a) for a in arguments], env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    )
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def unstyled(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def said(*arguments, code=0):
    """Return what a run prints, and its errors where it must fail."""
    result = invoke(*arguments, code=code)
    return unstyled(result.stdout + (result.stderr if code else ""))
