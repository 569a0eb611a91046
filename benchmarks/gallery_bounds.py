"""emoji-clip as a choice among a gallery of concepts, between its bounds: certified, and under sparse attacks.

    python benchmarks/gallery_bounds.py --classes 24 --draws 500

A picture and its caption ask for their concept; the gallery's entries are made of the concept's other pictures and
captions. Prints, per radius vector (patches, words), certified accuracy and accuracy under attack, and the stickers
that are certified where words are left alone.
"""

import argparse
import time

import crossguard as cg
from crossguard.certify import Smoothed, certify
from crossguard.certify.stickers import largest_sticker
from crossguard.evaluate.envelope import sparse_envelope
from crossguard.evaluate.gallery_task import gallery_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=24)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--patches", type=int, default=4, help="patches that a sub-sample keeps")
    parser.add_argument("--words", type=int, default=3, help="words that a sub-sample keeps")
    parser.add_argument("--alpha", type=float, default=0.001)
    options = parser.parse_args()
    started = time.process_time()
    task = gallery_task(cg.load_model("emoji-clip"), cg.load_pairs("emoji", split="test"), classes=options.classes)
    keep = {"image": options.patches, "text": options.words}
    certificate = certify(
        task.model, task.samples, keep=keep, draws=options.draws, alpha=options.alpha, bound="gap", batch_size=256
    )
    print(f"n = {dict(certificate.counts.n)}, k = {keep}, N = {options.draws}, alpha = {options.alpha}")
    print(f"smoothed accuracy {certificate.clean_accuracy:.3f}, abstaining {certificate.abstention:.3f}")
    vectors = [{"image": r, "text": w} for r, w in ((0, 0), (1, 0), (0, 1), (2, 0), (4, 0), (1, 1), (4, 2), (8, 4))]
    found = sparse_envelope(
        Smoothed(task.model, keep=keep, draws=options.draws, attack_draws=18, batch_size=256),
        task.samples,
        vectors,
        attack_options={"rounds": 1, "steps": 8},
        storage=task.storage,
        batch_size=12,
    )
    print(f"{'patches':>8} {'words':>6} {'certified':>10} {'attacked':>9}")
    for vector, attacked in zip(vectors, found.accuracy, strict=True):
        certified = certificate.accuracy(vector)
        print(f"{vector['image']:>8} {vector['text']:>6} {certified:>10.3f} {attacked:>9.3f}")
    sides: dict[int, int] = {}
    for i in range(len(task.samples)):
        radius = max((int(point[0]) for point in certificate.frontier(i)), default=0)
        side = largest_sticker(radius, task.patch)
        sides[side] = sides.get(side, 0) + 1
    print("certified sticker (side in pixels): samples", dict(sorted(sides.items())))
    print(f"{time.process_time() - started:.0f} s of CPU")


if __name__ == "__main__":
    main()
