"""Surface normals from depth images, in closed form from the gradient of inverse depth.

On a plane n . p = -d the inverse depth is affine in the pixel's place: with p = z ((u - cx) / fx, (v - cy) / fy, 1),

    1 / z = -(1 / d) (nx (u - cx) / fx + ny (v - cy) / fy + nz),

so nx : ny : nz = fx g_u : fy g_v : 1 / z - (u - cx) g_u - (v - cy) g_v with (g_u, g_v) the gradient of 1 / z. The first
two are the estimator of SNE-RoadSeg (Fan et al., ECCV 2020), which takes the third from the median over neighbours;
here the pixel's own inverse depth gives it, and the medians are taken of the gradients, which keeps edges.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from crossguard.data.depth import Camera


def normals_from_depth(
    depth: Float[Tensor, "images height width"], cameras: Camera | Sequence[Camera]
) -> Float[Tensor, "images 3 height width"]:
    """Return the unit normals of the surfaces, facing the camera.

    Each gradient is the median of the differences of neighbours within 3 x 3 pixels of which both depths are known:
    exact on planes whatever is missing, and not blurred over the edge of an object.

    Args:
        depth: metres, [images, height, width]; 0 where it is not known; not changed.
        cameras: one for all images, or one each.

    Returns:
        float [images, 3, height, width] of (x right, y down, z forward), so a road seen from above is near (0, -1, 0);
        zeros where depth or a gradient is not known.

    Raises:
        ValueError: negative or non-finite depth, an image smaller than 2 x 2, another number of cameras than images.
    """
    images, height, width = depth.shape
    given = [cameras] * images if isinstance(cameras, Camera) else list(cameras)
    if len(given) != images:
        raise ValueError(f"Expected one camera or {images}, but got {len(given)}.")
    if height < 2 or width < 2:
        raise ValueError(f"Expected images of 2 x 2 pixels or more, but got {height} x {width}.")
    if not torch.isfinite(depth).all() or (depth < 0).any():
        raise ValueError("Expected finite depth >= 0, but got negative or non-finite values.")
    numbers = [[camera.fx, camera.fy, camera.cx, camera.cy] for camera in given]
    fx, fy, cx, cy = torch.tensor(numbers, dtype=depth.dtype, device=depth.device).T[..., None, None]
    columns = torch.arange(width, dtype=depth.dtype, device=depth.device) - cx
    rows = torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None] - cy
    inverse = torch.where(depth > 0, 1 / depth.clamp_min(1e-6), torch.full_like(depth, torch.nan))
    across = _gradient(inverse)
    down = _gradient(inverse.transpose(1, 2)).transpose(1, 2)
    normal = torch.stack([fx * across, fy * down, inverse - columns * across - rows * down], dim=1)
    # Its product with the viewing ray is 1 / z > 0, so it points away from the camera.
    length = normal.norm(dim=1, keepdim=True)
    return torch.where(length > 0, -normal / length, torch.zeros_like(normal)).nan_to_num(0.0)


def _gradient(values: Float[Tensor, "images height width"]) -> Float[Tensor, "images height width"]:
    """Return the median, over 3 x 3 pixels, of the differences along rows; NaN where there is none."""
    steps = torch.nn.functional.pad(
        values.diff(dim=2), (1, 1, 1, 1), value=torch.nan
    )  # [images, height + 2, width + 1]
    height = values.shape[1]
    near = [steps[:, row : row + height, side : side + values.shape[2]] for row in range(3) for side in range(2)]
    ordered = torch.stack(near).sort(dim=0).values  # NaN comes last
    known = (~ordered.isnan()).sum(dim=0)
    low = ordered.gather(0, ((known - 1).clamp_min(0) // 2)[None])
    high = ordered.gather(0, (known // 2).clamp_max(5)[None])
    middle = torch.where(known % 2 == 0, (low + high) / 2, low)[0]
    return torch.where(known > 0, middle, torch.nan)
