"""RefCOCO+ at tiny size in exactly its released files."""

import io
import json
import struct

from PIL import Image

SIZES = {11: (40, 30), 22: (64, 48), 33: (20, 20)}  # image id: (width, height)
NAMES = {image_id: f"COCO_train2014_{image_id:012d}.jpg" for image_id in SIZES}
BOXES = {101: [2.0, 3.0, 20.0, 15.0], 102: [10.5, 0.0, 29.5, 30.0], 201: [32, 8, 32, 40], 301: [0, 0, 20, 20]}
OF_IMAGE = {101: 11, 102: 11, 201: 22, 301: 33}
REFS = [(7, 101, "val"), (8, 102, "val"), (9, 201, "testA"), (10, 301, "val")]
ROWS = [
    ("left red disc", 7),
    ("the small one", 7),
    ("man’s dog in the café", 8),
    ("big square", 9),
    ("left red disc", 10),
]


class Python2Pickle:
    """Writes the opcodes that Python 2's cPickle wrote: `str` as (SHORT_)BINSTRING, `unicode` as BINUNICODE.

    Python 3 cannot write those. Protocol 0 is the text form (S, V, I, ...).
    """

    def __init__(self, protocol):
        self.protocol, self.out = protocol, io.BytesIO()
        if protocol == 2:
            self.out.write(b"\x80\x02")

    def dumps(self, value):
        self.write(value)
        return self.out.getvalue() + b"."

    def write(self, value):
        text = self.protocol == 0
        if isinstance(value, bytes):  # Python 2's str
            if text:
                self.out.write(b"S'" + b"".join(_escape(byte) for byte in value) + b"'\n")
            elif len(value) < 256:
                self.out.write(b"U" + bytes([len(value)]) + value)
            else:
                self.out.write(b"T" + struct.pack("<i", len(value)) + value)
        elif isinstance(value, str):  # Python 2's unicode
            if text:
                self.out.write(b"V" + value.encode("raw_unicode_escape") + b"\n")
            else:
                raw = value.encode("utf-8")
                self.out.write(b"X" + struct.pack("<I", len(raw)) + raw)
        elif isinstance(value, bool):
            self.out.write((b"I01\n" if value else b"I00\n") if text else (b"\x88" if value else b"\x89"))
        elif isinstance(value, int):
            self.out.write(b"I%d\n" % value if text else b"J" + struct.pack("<i", value))
        elif isinstance(value, float):
            self.out.write(b"F%r\n" % value if text else b"G" + struct.pack(">d", value))
        elif isinstance(value, list):
            self.out.write(b"(l" if text else b"]")
            for item in value:
                self.write(item)
                self.out.write(b"a")
        elif isinstance(value, dict):
            self.out.write(b"(d" if text else b"}")
            for key, item in value.items():
                self.write(key)
                self.write(item)
                self.out.write(b"s")
        else:
            raise TypeError(type(value))


def _escape(byte):
    character = bytes([byte])
    return character if 32 <= byte < 127 and character not in b"'\\" else b"\\x%02x" % byte


def released_references():
    """As in `refs(unc).p`: keys and names are `str`, sentences partly `unicode`, partly `str` in UTF-8 or Latin-1."""
    refs = []
    for number, (ref_id, ann_id, split) in enumerate(REFS):
        said = [text for text, row in ROWS if row == ref_id]
        sentences = [
            {
                b"tokens": [token if number % 2 else token.encode() for token in sentence.split()],
                b"raw": sentence.upper(),
                b"sent_id": 100 * ref_id + place,
                b"sent": sentence if number % 2 else sentence.encode(),
            }
            for place, sentence in enumerate(said)
        ]
        refs.append(
            {
                b"sent_ids": [sentence[b"sent_id"] for sentence in sentences],
                b"file_name": f"{NAMES[OF_IMAGE[ann_id]][:-4]}_{number}.jpg".encode(),
                b"ann_id": ann_id,
                b"sentences": sentences,
                b"ref_id": ref_id,
                b"category_id": 1,
                b"image_id": OF_IMAGE[ann_id],
                b"split": split.encode(),
            }
        )
    return refs


def write_refcoco(folder, *, protocol=2):
    """Write annotations, photos and boxes; returns the arguments of `load_refcoco_plus`."""
    photos, boxes = folder / "images" / "train2014", folder / "refcoco+"
    photos.mkdir(parents=True)
    boxes.mkdir()
    for shade, (image_id, size) in enumerate(SIZES.items()):
        Image.new("RGB", size, (60 * shade, 90, 200)).save(photos / NAMES[image_id])
    of_ref = {ref_id: OF_IMAGE[ann_id] for ref_id, ann_id, _ in REFS}
    rows = [{"image": f"train2014/{NAMES[of_ref[ref]]}", "text": text, "ref_id": ref} for text, ref in ROWS]
    (folder / "refcoco+_test.json").write_text(json.dumps(rows))
    instances = {
        "info": {},
        "licenses": [],
        "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
        "images": [
            {"license": 1, "file_name": NAMES[i], "coco_url": "", "height": h, "width": w, "id": i}
            for i, (w, h) in SIZES.items()
        ],
        "annotations": [
            {
                "segmentation": [[1, 2, 3, 4, 5, 6]],
                "area": box[2] * box[3],
                "iscrowd": 0,
                "image_id": OF_IMAGE[number],
                "bbox": box,
                "category_id": 1,
                "id": number,
            }
            for number, box in BOXES.items()
        ],
    }
    (boxes / "instances.json").write_text(json.dumps(instances))
    (boxes / "refs(unc).p").write_bytes(Python2Pickle(protocol).dumps(released_references()))
    detections = {
        "11": [
            [1.5, 2.5, 21.0, 16.0, 0.98],
            [9.0, 0.0, 31.3, 29.9, 0.5],
            [0, 0, 5, 5, 0.4],
            [0, 18, 14, 12],
            [13.5, 10, 14, 20],
        ],
        "22": [[30.0, 10.0, 33.5, 38.0], [0, 0, 20, 20]],
        "33": [[0, 0, 20.4, 20.0]],
    }
    (boxes / "dets.json").write_text(json.dumps(detections))
    return {"annotations": folder / "refcoco+_test.json", "root": folder / "images", "boxes": boxes}
