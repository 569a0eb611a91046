"""The processes that work together: who does which part of a work, and how the parts come together.

`torchrun`, `accelerate launch` and SLURM's `srun` start a program several times. A verb that can share its work asks
`join` who else is there: then it is one of `World.size` equal processes, of which the main one writes and shows.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from crossguard.launch import ProcessLost, is_apart, launched
from crossguard.runs import as_read_back, differences
from crossguard.runs.provenance import versions

_Value = TypeVar("_Value")
_Item = TypeVar("_Item")
_PATIENCE = timedelta(days=30)  # whoever is done first waits for the others, however long they take
_HEARD = 1.0  # seconds in which the others hear why the main process ends


class World:
    """One of `size` equal processes; with a size of 1 everything is a plain pass-through.

    Args:
        rank: number of this process.
        size: how many there are; above 1, `torch.distributed` must be ready.
        group: the process group that they talk in; None: the default one.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, group: Any = None) -> None:
        self.rank, self.size, self._group = rank, size, group
        self._depth = self._calls = self._dealt = 0

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def place(self, device: torch.device | str) -> torch.device:
        """Return this process's own device of a kind: of several GPUs of a machine each process has another one."""
        return torch.device(device) if self.size == 1 else own_device(device)

    # Tensors

    def share(self, total: int) -> slice:
        """Return this process's part of `total` rows; parts are contiguous and differ by one row at most."""
        return slice(self._bound(self.rank, total), self._bound(self.rank + 1, total))

    @torch.no_grad()
    def gather(self, own: Shaped[Tensor, "own ..."], total: int) -> Shaped[Tensor, "all ..."]:
        """Return everyone's rows, in order; no gradient flows through.

        Args:
            own: this process's rows, `share(total)` of them.
            total: rows of all processes.
        """
        if self.size == 1:
            return own
        sizes = [self._bound(rank + 1, total) - self._bound(rank, total) for rank in range(self.size)]
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own.detach()
        as_sent = padded.to(torch.uint8) if padded.dtype == torch.bool else padded
        parts = [torch.empty_like(as_sent) for _ in sizes]
        with self._told():
            dist.all_gather(parts, as_sent, group=self._group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).to(own.dtype)

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the processes, in place."""
        if self.size == 1 or not tensors:
            return
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            alike = [t for t in tensors if t.dtype == dtype]
            flat = torch.cat([t.reshape(-1) for t in alike])
            with self._told():
                dist.all_reduce(flat, group=self._group)
            for tensor, total in zip(alike, flat.split([t.numel() for t in alike]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every parameter's gradient by its sum; one that no process has a gradient for stays without."""
        if self.size == 1:
            return
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        self.add([present])
        used = [p for p, count in zip(parameters, present.tolist(), strict=True) if count]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add([p.grad for p in used if p.grad is not None])

    @torch.no_grad()
    def align(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the main one's values, in place."""
        if self.size > 1:
            with self._told():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0, group=self._group)

    # Values and work

    def agree(self, value: _Value) -> _Value:
        """Return the main process's value, which must be picklable and is trusted: it comes from this very program."""
        if self.size == 1:
            return value
        self.wait()
        box = [value if self.main else None]
        with self._told():
            dist.broadcast_object_list(box, src=0, group=self._group)
        found: Any = box[0]
        return found

    def every(self, value: _Value) -> list[_Value]:
        """Return the values of all processes, in order; trusted as in `agree`."""
        if self.size == 1:
            return [value]
        self.wait()
        found: list[Any] = [None] * self.size
        with self._told():
            dist.all_gather_object(found, value, group=self._group)
        return found

    def same(self, what: str, settings: Mapping[str, Any]) -> None:
        """Check that all processes were asked for the same.

        Args:
            what: they are, in words.
            settings: JSON values.

        Raises:
            ValueError: in every process, with the differences.
        """
        if self.size == 1:
            return
        first, *others = self.every(as_read_back(settings))
        for rank, other in enumerate(others, start=1):
            found = differences(first, other)
            if found:
                said = "; ".join(found).replace(" there and ", " in process 0 and ").replace(" now", "")
                raise ValueError(f"Expected the same {what} in all processes, but in process {rank} {said}.")

    def each(self, items: Sequence[_Item], make: Callable[[_Item], _Value]) -> Iterator[_Value]:
        """Give what `make` makes of every item, in order; each process makes its part, and gets those of the others."""
        if self.size == 1:
            yield from map(make, items)
            return
        made = self.every([make(item) for item in items[self.rank :: self.size]])
        yield from (made[place % self.size][place // self.size] for place in range(len(items)))

    def deal(self, items: Iterable[_Value], *, passed: Callable[[_Value], object] | None = None) -> Iterator[_Value]:
        """Give this process its part of some pieces of work, each to whoever is free, and wait for the others at the
        end; in a single process give all.

        Args:
            items: the same in all processes; to be used up by each.
            passed: is called with what others were given.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.size == 1:
            yield from items
            return
        self._dealt += 1
        key, store, mine = f"crossguard/dealt/{self._dealt}", _store(), -1
        for place, item in enumerate(items):
            if mine < place:
                self._look()
                with self._told():
                    mine = store.add(key, 1) - 1
            if mine == place:
                yield item
            elif passed is not None:
                passed(item)
        self.wait()

    def wait(self) -> None:
        """Return once every process is here.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.size == 1:
            return
        with self._told():
            work = dist.barrier(group=self._group, async_op=True)
            pause = 1e-4
            # Looking now and then, so that signals are heard and an error elsewhere is known at once.
            while work is not None and not work.is_completed():
                time.sleep(pause)
                pause = min(2 * pause, 0.2)
                if pause == 0.2 and not work.is_completed():
                    self._listen()
            if work is not None:
                work.wait()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let an error within the block end all processes, each with a sentence, rather than leave them waiting."""
        self._depth += 1
        self._calls += self._depth == 1
        try:
            yield
        except Exception as error:
            if self.size > 1 and not isinstance(error, ProcessLost):
                with suppress(Exception):  # those who cannot be told notice it by themselves
                    _store().set(self._failed, f"process {self.rank} ended: {error}")
                    if self.main:
                        time.sleep(_HEARD)  # it may be this process that keeps what was said
            raise
        finally:
            self._depth -= 1

    @property
    def _failed(self) -> str:
        return f"crossguard/failed/{self._calls}"

    def _look(self) -> None:
        """Raise where another process has said that it failed."""
        with self._told():
            self._raise_failure()

    def _listen(self) -> None:
        """As `_look`; that nobody answers any more is left for the waiting itself to notice."""
        try:
            self._raise_failure()
        except (RuntimeError, OSError) as error:
            if isinstance(error, ProcessLost):
                raise

    def _raise_failure(self) -> None:
        if _store().check([self._failed]):
            raise ProcessLost(_lost(self.size, _store().get(self._failed).decode(errors="replace")))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say in words that talking with the others failed: in those of the one that failed, where it left any."""
        try:
            yield
        except ProcessLost:
            raise
        except (RuntimeError, OSError) as error:
            try:
                self._raise_failure()
            except (RuntimeError, OSError) as failure:
                if isinstance(failure, ProcessLost):
                    raise failure from error
            raise ProcessLost(_lost(self.size, "another one has ended or cannot be reached")) from error

    def _bound(self, rank: int, total: int) -> int:
        return rank * total // self.size


ALONE = World()
"""The world of a single process."""
_joined: tuple[Any, World] | None = None


def join(device: torch.device | str) -> World:
    """Return the processes that were launched together, after meeting them; the only one where there are no others.

    Args:
        device: where this process will compute; says which kind of group Accelerate makes.

    Raises:
        ValueError: others run other code.
        RuntimeError: the others do not come, or the port is in use.
    """
    global _joined
    if is_apart() or (launched() == 1 and not (dist.is_available() and dist.is_initialized())):
        return ALONE
    if dist.is_initialized() and _joined is not None and _joined[0] is dist.group.WORLD:
        return _joined[1]
    try:
        if not dist.is_initialized():
            from accelerate.state import AcceleratorState, GradientState, PartialState

            if PartialState._shared_state:  # of work that was done alone
                AcceleratorState._reset_state(reset_partial_state=True)
                GradientState._reset_state()
            PartialState(cpu=torch.device(device).type == "cpu")
        if dist.get_world_size() == 1:
            return ALONE
        # A group on the CPU, whatever the computation is on: what is exchanged is small or lies there anyway.
        group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError, OSError) as error:
        raise RuntimeError(_not_met(error)) from error
    world = World(dist.get_rank(), dist.get_world_size(), group=group)
    _joined = (dist.group.WORLD, world)
    world.same("code", {"versions": versions(), "files": _code()})
    return world


def own_device(device: torch.device | str) -> torch.device:
    """Return the device that a process which was launched with others computes on: of several GPUs its own."""
    device = torch.device(device)
    if device.type != "cuda" or launched() == 1:
        return device
    place = int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))
    return torch.device("cuda", place % torch.cuda.device_count())


def _lost(size: int, why: str) -> str:
    return (
        f"Expected all {size} processes to go on, but {why.rstrip('.')}. What was finished is kept: the same command "
        "goes on where it stopped, with any number of processes."
    )


def _not_met(error: Exception) -> str:
    where = f"{os.environ.get('MASTER_ADDR', 'localhost')}:{os.environ.get('MASTER_PORT', '?')}"
    if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
        return f"Expected the port of {where} to be free, but another program has it: set MASTER_PORT to another one."
    size, rank = (os.environ.get(name, "?") for name in ("WORLD_SIZE", "RANK"))
    return (
        f"Expected {size} processes to meet at {where}, but process {rank} did not meet the others: "
        f"{str(error).splitlines()[0]}"
    )


def _store() -> Any:
    """Return the small table of names and values that all processes see."""
    return dist.distributed_c10d._get_default_store()


@cache
def _code() -> dict[str, str]:
    """Return a digest of every file of the package."""
    package = Path(__file__).parent
    found = sorted(path for path in package.rglob("*.py"))
    return {str(p.relative_to(package)): blake2b(p.read_bytes(), digest_size=8).hexdigest() for p in found}
