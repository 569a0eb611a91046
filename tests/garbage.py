"""No search for garbage among what is imported: it lives as long as the process, and each search takes a second.

Imported before everything that is large.
"""

import gc

gc.disable()


def search_from_now() -> None:
    """Look for garbage again, but only among what comes from now on."""
    gc.freeze()
    frozen = gc.get_freeze_count()  # goes through all of them
    gc.get_freeze_count = lambda: frozen
    gc.enable()
