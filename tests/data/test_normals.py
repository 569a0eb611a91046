"""Surface normals: exact on planes, whatever depths are missing; not blurred over edges."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossguard.data.depth import Camera
from crossguard.data.normals import normals_from_depth

CAMERA = Camera(fx=50.0, fy=60.0, cx=15.3, cy=9.8)


def plane_depth(normal, distance, size=(20, 32), camera=CAMERA):
    """Depth where each pixel's ray meets the plane n . p = -distance."""
    v, u = np.mgrid[: size[0], : size[1]].astype(np.float64)
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(size)], axis=-1)
    across = rays @ normal
    return torch.from_numpy(-distance / np.where(across == 0, np.inf, across))


@given(tilt=st.floats(-0.6, 0.6), turn=st.floats(-0.6, 0.6), distance=st.floats(1.0, 20.0), seed=st.integers(0, 99))
def test_planes_are_exact_with_holes(tilt, turn, distance, seed):
    normal = np.array([np.sin(turn), np.sin(tilt) * np.cos(turn), -np.cos(tilt) * np.cos(turn)])
    depth = plane_depth(normal, distance)
    depth[torch.rand(depth.shape, generator=torch.Generator().manual_seed(seed)) < 0.2] = 0
    found = normals_from_depth(depth[None], CAMERA)[0]
    known = found.abs().sum(dim=0) > 0
    assert known[depth > 0].float().mean() > 0.9
    assert not known[depth == 0].any()
    expected = torch.from_numpy(normal)[:, None, None].expand_as(found)
    torch.testing.assert_close(found[:, known], expected[:, known], atol=1e-7, rtol=0)


def test_a_road_looks_up_and_each_image_has_its_camera():
    other = Camera(fx=80.0, fy=40.0, cx=10.0, cy=2.0)
    up = np.array([0.0, -1.0, 0.0])
    depths = [plane_depth(up, 1.6, camera=camera) for camera in (CAMERA, other)]
    depth = torch.stack([torch.where((part > 0) & (part < 60), part, 0.0) for part in depths])
    found = normals_from_depth(depth, [CAMERA, other])
    known = found.abs().sum(dim=1) > 0
    assert known.any(dim=(1, 2)).all()
    assert (found[:, 1][known] < -0.999999).all()


def test_an_edge_between_two_walls_is_not_blurred():
    depth = torch.full((1, 12, 12), 5.0, dtype=torch.float64)
    depth[:, :, 6:] = 9.0
    found = normals_from_depth(depth, CAMERA)
    far = torch.ones(12, dtype=torch.bool)
    far[5:7] = False
    torch.testing.assert_close(found[0, 2][:, far], torch.full((12, 10), -1.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("depth", "cameras", "message"),
    [
        (torch.full((1, 4, 4), -1.0), CAMERA, "depth >= 0"),
        (torch.full((1, 4, 4), torch.nan), CAMERA, "depth >= 0"),
        (torch.ones(1, 1, 4), CAMERA, "2 x 2"),
        (torch.ones(2, 4, 4), [CAMERA], "one camera or 2"),
    ],
)
def test_wrong_input_is_refused(depth, cameras, message):
    with pytest.raises(ValueError, match=message):
        normals_from_depth(depth, cameras)


def test_the_callers_depth_is_not_changed():
    depth = plane_depth(np.array([0.0, 0.0, -1.0]), 3.0)[None]
    before = depth.clone()
    normals_from_depth(depth, CAMERA)
    assert torch.equal(depth, before)
