"""Processes that work together: what they agree on, how work is dealt, and how the loss of one ends the others."""

import os
import time

import pytest
import torch

from crossguard.launch import ProcessLost, alone, first_node, is_main, launched
from crossguard.world import ALONE, World, join, own_device
from processes import in_processes


def talk(rank):
    world = join("cpu")
    own = torch.arange(5)[world.share(5)]
    summed = torch.tensor([float(rank + 1)])
    world.add([summed])
    dealt = list(world.deal(range(7)))
    with alone():
        apart = (join("cpu") is ALONE, launched(), is_main())
    return {
        "place": (world.rank, world.size, world.main, is_main()),
        "gathered": world.gather(own, 5).tolist(),
        "summed": summed.item(),
        "agreed": world.agree(f"from {rank}"),
        "every": world.every(rank),
        "each": list(world.each(range(5), lambda item: (item, rank))),
        "dealt": dealt,
        "apart": apart,
        "again": join("cpu") is world,
    }


def test_processes_share_and_agree():
    first, second = in_processes(talk)
    assert first["place"] == (0, 2, True, True)
    assert second["place"] == (1, 2, False, False)
    assert sorted(first["dealt"] + second["dealt"]) == list(range(7))
    for found in (first, second):
        assert found["gathered"] == list(range(5))
        assert found["summed"] == 3
        assert found["agreed"] == "from 0"
        assert found["every"] == [0, 1]
        assert found["each"] == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]
        assert found["apart"] == (True, 1, True)
        assert found["again"]


def differ(rank):
    join("cpu").same("recipe", {"seed": 1, "attack": {"steps": 5 + rank}})


def test_other_settings_in_a_process_are_named_in_all():
    for found in in_processes(differ):
        assert isinstance(found, ValueError)
        assert str(found) == (
            "Expected the same recipe in all processes, but in process 1 `attack.steps` is 5 in process 0 and 6."
        )


def fail(rank):
    world = join("cpu")
    with world.together():
        if rank == 1:
            raise ValueError("The picture is broken.")
        world.wait()


def vanish(rank):
    world = join("cpu")
    with world.together():
        if rank == 1:
            os._exit(9)
        world.wait()


def vanish_from_dealt(rank):
    world = join("cpu")
    with world.together():
        for item in world.deal(range(4)):
            if rank == 1:
                os._exit(9)
            time.sleep(0.1 + 0 * item)


@pytest.mark.parametrize(("work", "told"), [(fail, "process 1 ended: The picture is broken"), (vanish, "another one has ended or cannot be reached"), (vanish_from_dealt, "another one has ended or cannot be reached")])  # fmt: skip
def test_a_process_that_ends_ends_the_others_with_a_sentence(work, told):
    first, _ = in_processes(work)
    assert isinstance(first, ProcessLost)
    assert str(first) == (
        f"Expected all 2 processes to go on, but {told}. What was finished is kept: the same command goes on where it "
        "stopped, with any number of processes."
    )


def test_other_code_in_a_process_is_refused():
    def work(rank):
        import crossguard.world

        if rank == 1:
            crossguard.world._code = lambda: {**real(), "world.py": "other"}
        join("cpu")

    from crossguard.world import _code as real

    for found in in_processes(work):
        assert isinstance(found, ValueError)
        assert "the same code in all processes, but in process 1 `files.world.py` is" in str(found)


def test_a_taken_port_is_named(monkeypatch):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        def work(rank):
            os.environ["MASTER_PORT"] = str(port)
            join("cpu")

        (found,) = in_processes(lambda rank: work(rank) if not rank else None, size=2)[:1]
    assert str(found) == (
        f"Expected the port of 127.0.0.1:{port} to be free, but another program has it: set MASTER_PORT to another one."
    )


def test_alone_nothing_is_exchanged():
    assert (ALONE.agree(3), ALONE.every(3), list(ALONE.deal("ab"))) == (3, [3], ["a", "b"])
    assert join("cpu") is ALONE
    assert own_device("cpu") == torch.device("cpu")
    with ALONE.together(), pytest.raises(ValueError, match="wrong"):
        raise ValueError("wrong")


@pytest.fixture
def slurm(monkeypatch):
    """The variables of the second of four tasks on two nodes."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # put back at the end
        monkeypatch.delenv(name)
    told = {"PROCID": 3, "LOCALID": 1, "STEP_NUM_TASKS": 4, "STEP_NODELIST": "gpu[07-08]", "JOB_ID": 4711, "STEP_ID": 0}
    for name, value in told.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


def test_a_step_of_slurm_says_who_is_there(slurm):
    assert launched() == 4
    assert not is_main()
    told = {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")}
    assert told == {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu07"}
    assert 20_000 <= int(os.environ["MASTER_PORT"]) < 40_000
    with alone():
        assert launched() == 1
    assert launched() == 4


def test_the_script_of_a_job_is_no_step(slurm, monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")  # only `srun` sets it
    assert launched() == 1


def test_torchrun_within_a_step_has_the_word(slurm, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert launched() == 2
    assert is_main()


def test_a_step_without_nodes_is_refused(slurm, monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(ValueError, match="Expected MASTER_ADDR, or SLURM_STEP_NODELIST"):
        launched()


@pytest.mark.parametrize(("nodes", "first"), [("n1", "n1"), ("a[1-3,7],b2", "a1"), ("x[09]", "x09"), ("p-1,q", "p-1")])
def test_the_first_node_is_found(nodes, first):
    assert first_node(nodes) == first


@pytest.mark.parametrize(("size", "total"), [(1, 5), (2, 5), (3, 7), (4, 4)])
def test_shares_are_a_partition(size, total):
    shares = [World(rank, size).share(total) for rank in range(size)]
    assert [row for share in shares for row in range(share.start, share.stop)] == list(range(total))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1
