"""What the inner attack found on an image's last visit, to start from on the next (Zheng et al., 2020).

A perturbation carried over costs memory in place of gradient steps.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from crossguard.world import ALONE, World

_LEVELS = 127


class Perturbations:
    """The last perturbation of every image of a data set, one byte per value, on the CPU.

    Args:
        images: images of the data set.
        size: (height, width) of their pixels.
        eps: L-inf budget, > 0, in whose 127th parts perturbations are kept; None for another budget: in 127th parts of
            each image's largest change.
    """

    def __init__(self, images: int, size: tuple[int, int], *, eps: float | None) -> None:
        self._eps = eps
        self.step = torch.full((images,), (eps or 0.0) / _LEVELS)
        self.kept = torch.zeros(images, 3, *size, dtype=torch.int8)
        self.visited = torch.zeros(images, dtype=torch.bool)

    def start(
        self,
        pixels: Float[Tensor, "images 3 height width"],
        fresh: Float[Tensor, "images 3 height width"],
        ids: Int64[Tensor, " images"],
    ) -> Float[Tensor, "images 3 height width"]:
        """Return where to begin: the clean pixels with the perturbation kept, or `fresh` for images not met before.

        Args:
            pixels: clean, in [0, 1].
            fresh: within the budget.
            ids: the images' indices in the data set.
        """
        rows = ids.cpu()
        step = self.step[rows].to(pixels.device).view(-1, 1, 1, 1)
        moved = pixels + self.kept[rows].to(pixels.device, pixels.dtype) * step
        known = self.visited[rows].to(pixels.device).view(-1, 1, 1, 1)
        return torch.where(known, moved.clamp(0, 1), fresh)

    def keep(
        self,
        change: Float[Tensor, "own 3 height width"],
        ids: Int64[Tensor, " images"],
        *,
        world: World = ALONE,
    ) -> None:
        """Keep what was found.

        Args:
            change: adversarial minus clean pixels of this process's images, within the budget.
            ids: indices of the images of all processes.
            world: the processes; all of them keep everything.
        """
        rows = ids.cpu()
        largest: Tensor | float
        if self._eps is None:
            largest = change.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(change.dtype).tiny)
            self.step[rows] = world.gather(largest.flatten().float() / _LEVELS, len(ids)).cpu()
        else:
            largest = self._eps
        levels = (change / largest * _LEVELS).round().clamp(-_LEVELS, _LEVELS).to(torch.int8)
        self.kept[rows] = world.gather(levels, len(ids)).cpu()
        self.visited[rows] = True

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: the tensors themselves."""
        state = {"perturbations.kept": self.kept, "perturbations.visited": self.visited}
        return state | ({"perturbations.step": self.step} if self._eps is None else {})
