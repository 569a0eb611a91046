"""Sources that run models: the real pipelines on tiny models saved in the real layouts."""

from itertools import chain

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer, BlipForConditionalGeneration

from crossguard.augment import Captioner, ImageToImage, Request, Rewrite, TextToImage
from crossguard.augment.rewrite import first_line
from crossguard.augment.sampling import OwnChance, nucleus

pytest_plugins = ("augment_models",)


def request(pairs, *, count=3, seed=0, batch_size=4):
    return Request(count, seed, batch_size, torch.device("cpu"), pairs)


def contents(made):
    return [[one.content for one in samples] for samples in made]


class TestSampling:
    def test_draws_have_the_distribution_of_the_model(self):
        logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]])
        ids = torch.arange(20_000)
        scores = OwnChance(ids, seed=3, temperature=2.0, top_p=1.0)(
            torch.zeros(len(ids), 1, dtype=torch.int64), logits.expand(len(ids), -1)
        )
        counts = scores.argmax(dim=1).bincount(minlength=5).numpy()
        expected = (logits[0] / 2).softmax(dim=0).double().numpy()
        assert chisquare(counts, expected / expected.sum() * len(ids)).pvalue > 1e-3

    def test_steps_are_independent(self):
        chance = OwnChance(torch.arange(5000), seed=0, temperature=1.0, top_p=1.0)
        flat = torch.zeros(5000, 2)
        first = chance(torch.zeros(5000, 7, dtype=torch.int64), flat).argmax(dim=1)
        second = chance(torch.zeros(5000, 8, dtype=torch.int64), flat).argmax(dim=1)
        assert abs((first == second).float().mean() - 0.5) < 0.04

    def test_nucleus_is_the_smallest_set_that_reaches_top_p(self):
        probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.95, 0.03, 0.01, 0.01]])
        kept = nucleus(probabilities.log(), 0.7).isfinite()
        assert kept.tolist() == [[False, True, False, True], [True, False, False, False]]
        assert nucleus(probabilities.log(), 1.0).isfinite().all()


class TestRewrite:
    def test_batch_size_and_company_do_not_matter(self, toy_pairs, language_model_folder):
        source = Rewrite(model=language_model_folder, max_new_tokens=6)
        items = list(range(12))
        together = contents(source.make_texts(toy_pairs, items, request(toy_pairs, batch_size=64)))
        assert sum(map(len, together)) > 30
        assert together == contents(source.make_texts(toy_pairs, items, request(toy_pairs, batch_size=5)))
        assert together[4:5] == contents(source.make_texts(toy_pairs, [4], request(toy_pairs, batch_size=1)))

    def test_seeds_and_parents(self, toy_pairs, language_model_folder):
        source = Rewrite(model=language_model_folder, max_new_tokens=6)
        a, b = (source.make_texts(toy_pairs, [0, 5], request(toy_pairs, seed=seed)) for seed in (0, 1))
        assert contents(a) != contents(b)
        assert [{one.texts for one in samples} for samples in a] == [{(0,)}, {(5,)}]

    def test_greedy_limit_is_what_transformers_generates(self, toy_pairs, language_model_folder):
        source = Rewrite(model=language_model_folder, max_new_tokens=6, top_p=1e-6, prompt="a picture of {text}")
        network = AutoModelForCausalLM.from_pretrained(language_model_folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(language_model_folder)
        encoded = tokenizer("a picture of " + toy_pairs.texts[3], return_tensors="pt", return_token_type_ids=False)
        output = network.generate(**encoded, do_sample=False, max_new_tokens=6)
        answer = tokenizer.decode(output[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
        assert contents(source.make_texts(toy_pairs, [3], request(toy_pairs, count=2))) == [[first_line(answer)]]

    def test_a_chat_template_is_used(self, toy_pairs, language_model_folder, tmp_path):
        import shutil

        shutil.copytree(language_model_folder, tmp_path / "chat")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "chat")
        tokenizer.chat_template = "{% for m in messages %}[BOS] {{ m['content'] }}{% endfor %} small"
        tokenizer.save_pretrained(tmp_path / "chat")
        source = Rewrite(model=tmp_path / "chat", prompt="plain {text}")
        assert source._prompt("red disc") == "[BOS] plain red disc small"
        assert source.make_texts(toy_pairs, [0], request(toy_pairs))[0]

    @pytest.mark.parametrize(
        ("answer", "line"),
        [
            ("", ""),
            ("\n  \n", ""),
            ("1. a red   disc\n2. b", "a red disc"),
            ("'quoted'", "quoted"),
            ("Caption: a disc", "a disc"),
            ('say "no" to "yes"', 'say "no" to "yes"'),
        ],
    )
    def test_first_line(self, answer, line):
        assert first_line(answer) == line

    def test_bad_settings(self, language_model_folder, tmp_path):
        with pytest.raises(ValueError, match=r"with \"\{text\}\""):
            Rewrite(model=language_model_folder, prompt="say it")
        with pytest.raises(ValueError, match="`top_p`"):
            Rewrite(model=language_model_folder, top_p=0.0)
        with pytest.raises(ValueError, match="causal language model in"):
            Rewrite(model=tmp_path, offline=True)


class TestCaptioner:
    def test_batch_size_and_company_do_not_matter(self, toy_pairs, blip_folder):
        source = Captioner(model=blip_folder, max_new_tokens=5)
        items = list(range(6))
        together = contents(source.make_texts(toy_pairs, items, request(toy_pairs, batch_size=64)))
        assert sum(map(len, together)) > 12
        assert together == contents(source.make_texts(toy_pairs, items, request(toy_pairs, batch_size=1)))
        assert together[2:3] == contents(source.make_texts(toy_pairs, [2], request(toy_pairs)))

    def test_pictures_matter(self, toy_pairs, blip_folder, monkeypatch):
        source = Captioner(model=blip_folder, max_new_tokens=5)
        before = contents(source.make_texts(toy_pairs, [0], request(toy_pairs, count=6)))
        other = toy_pairs.image(7)
        monkeypatch.setattr(type(toy_pairs), "image", lambda self, index: other)
        assert contents(source.make_texts(toy_pairs, [0], request(toy_pairs, count=6))) != before

    def test_greedy_limit_is_what_transformers_generates(self, toy_pairs, blip_folder):
        source = Captioner(model=blip_folder, max_new_tokens=5, top_p=1e-6)
        network = BlipForConditionalGeneration.from_pretrained(blip_folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(blip_folder)
        pixels = source._processor([toy_pairs.image(3)], return_tensors="pt")["pixel_values"]
        prompt = tokenizer("a picture of", return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            output = network.generate(pixels, **prompt, do_sample=False, max_new_tokens=5)
        caption = tokenizer.decode(output[0, prompt["input_ids"].shape[1] - 1 :], skip_special_tokens=True)
        [[made]] = contents(source.make_texts(toy_pairs, [3], request(toy_pairs, count=2)))
        assert made == " ".join(caption.split())

    def test_parents_and_missing_weights(self, toy_pairs, blip_folder, tmp_path):
        made = Captioner(model=blip_folder, max_new_tokens=5).make_texts(toy_pairs, [3], request(toy_pairs))
        assert {one.images for one in made[0]} == {(3,)}
        with pytest.raises(ValueError, match="BLIP captioner in"):
            Captioner(model=tmp_path, offline=True)


class TestDiffusion:
    def test_text_to_image(self, toy_pairs, diffusion_folder):
        source = TextToImage(model=diffusion_folder, steps=2)
        made = source.make_images(toy_pairs, [0, 4], request(toy_pairs, count=2, batch_size=3))
        assert [{one.texts for one in samples} for samples in made] == [{(0,)}, {(4,)}]
        images = [np.asarray(one.content) for samples in made for one in samples]
        assert {image.shape for image in images} == {(16, 16, 3)}
        assert len({image.tobytes() for image in images}) == 4

    def test_batch_size_does_not_matter(self, toy_pairs, diffusion_folder):
        for source in (
            TextToImage(model=diffusion_folder, steps=2, size=24),
            ImageToImage(model=diffusion_folder, steps=4),
        ):
            one, all_ = (
                contents(source.make_images(toy_pairs, [0, 4, 9], request(toy_pairs, batch_size=size)))
                for size in (1, 64)
            )
            for a, b in zip(chain(*one), chain(*all_), strict=True):
                # Matrix products of other sizes round differently: a grey level at most.
                assert np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max() <= 1

    def test_image_to_image_starts_at_the_picture(self, toy_pairs, diffusion_folder):
        weak, strong = (ImageToImage(model=diffusion_folder, steps=20, strength=strength) for strength in (0.05, 1.0))
        pipeline = weak._pipeline
        pixels = pipeline.image_processor.preprocess([toy_pairs.image(0).resize((16, 16))])
        with torch.no_grad():
            there_and_back = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample
        reference = pipeline.image_processor.postprocess(there_and_back, output_type="np")[0]
        distances = [
            np.mean(
                [
                    np.abs(np.asarray(one) / 255 - reference).mean()
                    for one in contents(source.make_images(toy_pairs, [0], request(toy_pairs, count=4)))[0]
                ]
            )
            for source in (weak, strong)
        ]
        assert distances[0] < distances[1]

    def test_captions_take_turns(self, toy_pairs, diffusion_folder):
        source = ImageToImage(model=diffusion_folder, steps=2)
        prompts = source._captions(toy_pairs, 5, request(toy_pairs, count=6))
        own = {toy_pairs.texts[j] for j in toy_pairs.texts_of(5)}
        assert set(prompts[:3]) == set(prompts[3:]) == own

    def test_a_folder_says_what_it_is(self, toy_pairs, sdxl_folder):
        for source in (TextToImage(model=sdxl_folder, steps=2), ImageToImage(model=sdxl_folder, steps=4)):
            made = contents(source.make_images(toy_pairs, [0, 4], request(toy_pairs, count=2)))
            images = [np.asarray(one) for one in chain(*made)]
            assert {image.shape for image in images} == {(16, 16, 3)}
            assert len({image.tobytes() for image in images}) == 4
            assert "XL" in type(source._pipeline).__name__

    def test_adapters(self, toy_pairs, diffusion_folder, sdxl_folder, tmp_path):
        pytest.importorskip("peft")
        from diffusers import StableDiffusionPipeline
        from peft import LoraConfig
        from peft.utils import get_peft_model_state_dict

        plain = TextToImage(model=diffusion_folder, steps=2)
        network = StableDiffusionPipeline.from_pretrained(str(diffusion_folder)).unet
        network.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
        StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(network))
        file = tmp_path / "pytorch_lora_weights.safetensors"

        def drawn(**options):
            source = TextToImage(model=diffusion_folder, steps=2, **options)
            made = source.make_images(toy_pairs, [0], request(toy_pairs))
            return np.asarray(made[0][0].content).astype(int), source.options

        before = np.asarray(plain.make_images(toy_pairs, [0], request(toy_pairs))[0][0].content).astype(int)
        tuned, options = drawn(lora=tmp_path, lora_scale=3.0)
        same, others = drawn(lora=file, lora_scale=3.0)
        assert (tuned == same).all()
        assert np.abs(tuned - before).max() > 1
        assert np.abs(drawn(lora=file, lora_scale=0.0)[0] - before).max() <= 1
        assert options["weights"] == others["weights"] != plain.options["weights"]
        with pytest.raises(ValueError, match="Expected low-rank adapters for StableDiffusionXLPipeline"):
            TextToImage(model=sdxl_folder, lora=file)
        with pytest.raises(ValueError, match="Expected low-rank adapters"):
            TextToImage(model=diffusion_folder, lora=tmp_path / "none", offline=True)

    def test_bad_settings(self, diffusion_folder, tmp_path):
        with pytest.raises(ValueError, match="multiple of 8"):
            TextToImage(model=diffusion_folder, size=20)
        with pytest.raises(ValueError, match="at least one of 2 steps"):
            ImageToImage(model=diffusion_folder, steps=2, strength=0.3)
        with pytest.raises(ValueError, match="diffusion pipeline in"):
            TextToImage(model=tmp_path, offline=True)

    def test_without_diffusers_the_error_says_what_to_install(self, monkeypatch, tmp_path):
        import sys

        monkeypatch.setitem(sys.modules, "diffusers", None)
        with pytest.raises(ImportError, match="pip install .diffusers.* extra .diffusion."):
            TextToImage(model=tmp_path)
