"""Several processes that know of each other as those of `torchrun` do, for any test to start."""

import os
import pickle
import signal
import socket
import traceback
import warnings


def in_processes(work, size=2):
    """Call `work(rank)` in so many forked processes; return what each gives, or the error that ended it.

    Forked, they have all that the test has loaded: starting Python anew would take most of the time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends = [_forked(work, rank, size, port) for rank in range(size)]
    found = []
    for process, pipe in ends:
        with os.fdopen(pipe, "rb") as file:
            content = file.read()
        _, status = os.waitpid(process, 0)
        found.append(pickle.loads(content) if content else SystemExit(os.waitstatus_to_exitcode(status)))
    return found


def _forked(work, rank, size, port):
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads of the test run
        process = os.fork()
    if process:
        os.close(write)
        return process, read
    try:
        signal.alarm(300)
        os.close(read)
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {key: str(value) for key, value in places.items()}
        try:
            result = work(rank)
        except Exception as error:
            traceback.print_exc()
            result = error
        try:
            content = pickle.dumps(result)
        except Exception:
            content = pickle.dumps(RuntimeError(str(result)))
        with os.fdopen(write, "wb") as file:
            file.write(content)
    finally:
        os._exit(0)
