"""What the field's zero-shot table would take here: 13 sets, two budgets, AutoAttack's first two parts.

    python benchmarks/zero_shot_cost.py [--size L-14] [--pictures 1000] [--sample 2] [--half] [--device cpu]
        [--threads 1]

A CLIP ViT of random weights and the real sizes stands for a checkpoint: what a pass takes does not depend on weights.
Passes of a picture that stands to the end are counted, one is measured, and pictures are counted as in the recipe
`zero-shot`; 1,000 classes each, which is the most that its sets have.
"""

import argparse

import torch
from PIL import Image

import crossguard as cg
from crossguard.evaluate.pass_cost import estimate_zero_shot
from crossguard.evaluate.tasks.samples import NamedAttack
from crossguard.models import CLIP
from crossguard.models.tokenizers import clip_tokenizer

SIZES = {
    "B-32": {"patch_size": 32, "vision_width": 768, "vision_layers": 12, "text_width": 512, "embed_dim": 512},
    "B-16": {"patch_size": 16, "vision_width": 768, "vision_layers": 12, "text_width": 512, "embed_dim": 512},
    "L-14": {"patch_size": 14, "vision_width": 1024, "vision_layers": 24, "text_width": 768, "embed_dim": 768},
}
SETS = 13


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="L-14")
    parser.add_argument("--pictures", type=int, default=1000, help="of each set")
    parser.add_argument("--sample", type=int, default=2, help="pictures that a pass is measured on")
    parser.add_argument("--half", action="store_true", help="half precision first, as the recipe has it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = CLIP.from_sizes(
        clip_tokenizer(),
        image_size=224,
        text_layers=12,
        context_length=77,
        seed=0,
        name=f"ViT-{options.size}",
        **SIZES[options.size],
    ).to(options.device)
    picture, names = Image.new("RGB", (256, 256), "grey"), [f"thing number {number}" for number in range(1000)]
    labels = [number % 1000 for number in range(options.pictures)]
    data = cg.as_images([(picture, label) for label in labels], classes=names)
    cost = estimate_zero_shot(
        model,
        {f"set {number}": data for number in range(SETS)},
        attacks={"auto-attack": NamedAttack("auto-attack", {"parts": ["apgd-ce", "apgd-t"]})},
        threats=[cg.ThreatModel(image=cg.LInf(eps / 255)) for eps in (2, 4)],
        half_first=options.half,
        sample=options.sample,
    )
    print(cost)


if __name__ == "__main__":
    main()
