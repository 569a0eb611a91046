"""`python -m crossguard`: the command line."""

from crossguard.cli import app

if __name__ == "__main__":
    app()
