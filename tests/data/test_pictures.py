"""Pictures of every mode become upright RGB, from files of their own and from inside a shard."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from crossguard.data import Picture
from crossguard.data.decode import decode_error
from crossguard.data.pictures import FORMATS, ORIENTATION, as_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def saved(image, path, **options):
    image.save(path, **options)
    return np.asarray(Picture("x", path).load())


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_modes_without_transparency_are_pillows_own(mode):
    image = Image.fromarray(RGB).convert(mode)
    assert np.array_equal(np.asarray(as_rgb(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("mode", "file"), [("RGBA", "x.png"), ("LA", "x.png"), ("PA", "x.tif"), ("RGBA", "x.webp")])
def test_what_is_transparent_is_white(tmp_path, mode, file):
    image = Image.fromarray(RGB).convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (6, 4))))
    loaded = saved(image.convert(mode), tmp_path / file, **({"lossless": True} if file.endswith("webp") else {}))
    assert (loaded[:, ::2] == 255).all()
    assert not (loaded[:, 1::2] == 255).all()


def test_a_transparent_palette_colour_is_white(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(0, (0, 0, 2, 4))
    loaded = saved(image, tmp_path / "x.png", transparency=0)
    assert (loaded[:, :2] == 255).all()
    assert (loaded[:, 2:] == (40, 50, 60)).all()


@pytest.mark.parametrize("file", ["x.png", "x.tif"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path, file):
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert saved(Image.fromarray(deep), tmp_path / file)[0, :, 0].tolist() == [0, 1, 128, 255]
    wide = Image.fromarray(deep.astype(np.int32))
    assert np.asarray(as_rgb(wide))[0, :, 2].tolist() == [0, 1, 128, 255]
    eight = Image.fromarray(np.array([[0, 7, 255]], dtype=np.int32))
    assert np.asarray(as_rgb(eight))[0, :, 1].tolist() == [0, 7, 255]


def test_a_turned_photo_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera lay on its side: turn by 270 degrees
    loaded = saved(Image.fromarray(RGB), tmp_path / "x.png", exif=exif)
    assert np.array_equal(loaded, np.rot90(RGB, -1))


@pytest.mark.parametrize("file", ["x.png", "x.jpg", "x.tif", "x.webp"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_photo_is_turned_once(tmp_path, file, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.new("RGB", (32, 16), "red")
    image.paste("blue", (0, 0, 16, 16))
    image.save(tmp_path / file, exif=exif)
    loaded = Picture("x", tmp_path / file).load()
    again = as_rgb(loaded)
    assert loaded.size == again.size == ((32, 16) if orientation == 3 else (16, 32))
    for upright in (loaded, again):
        assert upright.getpixel((2, 2))[0 if orientation == 3 else 2] > 200  # 3: red comes first; 6: blue goes up


# A tag, its type (1 byte, 2 text, 3 short), its count and its value, beside the orientation.
@pytest.mark.parametrize(
    "tag",
    [
        (0x011A, 2, 4, b"72\0\0"),  # a resolution as text
        (0x011A, 1, 1, b"\x48\0\0\0"),
        (0x0128, 2, 2, b"2\0\0\0"),  # its unit as text
    ],
)
def test_tags_of_unusual_types_are_let_be(tmp_path, tag):
    tags = sorted([(ORIENTATION, 3, 1, struct.pack("<HH", 6, 0)), tag])
    entries = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in tags)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    assert saved(Image.fromarray(RGB), tmp_path / "x.jpg", exif=exif).shape == (8, 6, 3)


def test_orientations_that_cannot_be_read_are_upright(tmp_path):
    wild = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0a\0\0\0\0\0\0\0"  # "a"
    for exif in (wild, b"Exif\0\0no tags at all"):
        assert saved(Image.fromarray(RGB), tmp_path / "x.jpg", exif=exif).shape == RGB.shape


def test_a_picture_inside_a_shard(tmp_path):
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG")
    content = file.getvalue()
    (tmp_path / "shard").write_bytes(b"before" + content + b"after")
    picture = Picture("a", tmp_path / "shard", "", 6, len(content))
    assert picture.read() == content
    assert np.array_equal(np.asarray(picture.load()), RGB)
    with pytest.raises(ValueError, match="a in .*shard, but it could not be read"):
        Picture("a", tmp_path / "shard", "", 7, len(content)).load()
    with pytest.raises(ValueError, match="the shard ends before"):
        Picture("a", tmp_path / "shard", "", 60, 10**6).read()


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"<html>", lambda b: b[: len(b) // 2]])
def test_what_is_no_whole_image_is_named(tmp_path, damage):
    file = io.BytesIO()
    Image.fromarray(RGB.repeat(20, 0).repeat(20, 1)).save(file, "JPEG")
    (tmp_path / "bad.jpg").write_bytes(damage(file.getvalue()))
    with pytest.raises(ValueError, match=r"image file at .*bad\.jpg"):
        Picture("bad", tmp_path / "bad.jpg").load()
    with pytest.raises(ValueError, match=r"image file at .*gone\.jpg"):
        Picture("gone", tmp_path / "gone.jpg").load()


def eps(path):
    Image.fromarray(RGB).save(path, "EPS")


def ppm(path):
    Image.fromarray(RGB).save(path, "PPM")


@pytest.mark.parametrize("write", [eps, ppm])
def test_other_formats_are_not_opened_whatever_their_name(tmp_path, write):
    """Pillow would start Ghostscript for an EPS that is called photo.jpg."""
    write(tmp_path / "photo.jpg")
    with pytest.raises(ValueError, match=r"image file at .*photo\.jpg"):
        Picture("x", tmp_path / "photo.jpg").load()
    assert "no known image format (JPEG, PNG" in decode_error((tmp_path / "photo.jpg").read_bytes())


@pytest.mark.parametrize("form", FORMATS)
def test_named_formats_are_opened_whatever_their_name(tmp_path, form):
    Image.fromarray(RGB).save(tmp_path / "photo", form)
    assert Picture("x", tmp_path / "photo").load().size == (8, 6)
    assert decode_error((tmp_path / "photo").read_bytes()) == ""


@pytest.mark.parametrize("file", ["x.png", "x.gif", "x.webp", "x.tif", "x.bmp", "x.jpg"])
def test_a_picture_that_would_fill_the_memory(tmp_path, monkeypatch, file):
    Image.new("L", (300, 200)).save(tmp_path / file)
    monkeypatch.setenv("CROSSGUARD_MAX_PIXELS", "60000")
    assert Picture("x", tmp_path / file).load().size == (300, 200)
    monkeypatch.setenv("CROSSGUARD_MAX_PIXELS", "59999")
    with pytest.raises(ValueError, match="300 x 200 pixels, more than 59,999"):
        Picture("x", tmp_path / file).load()
    assert "more than 59,999" in decode_error((tmp_path / file).read_bytes())
    monkeypatch.setenv("CROSSGUARD_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="whole number above 0 in CROSSGUARD_MAX_PIXELS, but got 'many'"):
        Picture("x", tmp_path / file).load()


def test_the_limit_holds_without_being_set(tmp_path):
    Image.new("1", (9000, 9000)).save(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size < 20_000
    with pytest.raises(ValueError, match="9000 x 9000 pixels, more than 67,108,864"):
        Picture("x", tmp_path / "x.png").load()


@pytest.mark.parametrize("kind", ["float32", "int32", "int16"])
def test_tiff_without_a_known_white_is_refused(tmp_path, kind):
    values = np.linspace(0, 1, 48).reshape(6, 8) * (1 if kind == "float32" else 30000)
    saved = Image.fromarray(values.astype({"float32": np.float32}.get(kind, np.int32)))
    saved.save(tmp_path / "x.tif", tiffinfo={339: 2} if kind == "int16" else {})
    with pytest.raises(ValueError, match="nobody knows which one is white"):
        Picture("x", tmp_path / "x.tif").load()
    assert "which one is white" in decode_error((tmp_path / "x.tif").read_bytes())


def test_sixteen_bits_where_zero_is_white(tmp_path):
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "x.tif", tiffinfo={262: 0})
    content = bytearray((tmp_path / "x.tif").read_bytes())
    with Image.open(io.BytesIO(content)) as image:
        inverted = image.tag_v2[262] == 0
    loaded = np.asarray(Picture("x", tmp_path / "x.tif").load())[0, :, 0].tolist()
    assert loaded == ([255, 254, 127, 0] if inverted else [0, 1, 128, 255])


def test_values_beyond_sixteen_bits(tmp_path):
    for values in ([[0, 70000]], [[-1, 5]]):
        with pytest.raises(ValueError, match="pictures have 8 or 16 bits"):
            as_rgb(Image.fromarray(np.array(values, dtype=np.int32)))
