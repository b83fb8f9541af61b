"""The second model: its data, its training, its folder."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asced_analysis.replay import replay
from asced_recorders import record
from asced_stores import open_runs
from experiments.models.emoji import export, fetch, labelling, network, places, train
from experiments.models.emoji.pipeline import EmojiPipeline
from experiments.remedies import blind

EMOJI = (  # code points, category, subcategory, skin tones
    ("1F600", "Smileys & Emotion", "face-smiling", ()),
    ("1F44B", "People & Body", "hand-fingers-open", ("1F3FB", "1F3FF")),
    ("1F450", "People & Body", "hand-fingers-open", ("1F3FD",)),  # held out
    ("1F469-200D-1F680", "People & Body", "person-role", ()),
    ("1F468-200D-1F680", "People & Body", "person-role", ()),
    ("1F436", "Animals & Nature", "animal-mammal", ()),
    ("1F431", "Animals & Nature", "animal-mammal", ()),
    ("1F3FB", "Component", "skin-tone", ()),
)


def made(code: str, category: str, subcategory: str) -> dict[str, Any]:
    """One entry of emoji.json."""
    name = code.lower()
    facts = {"unified": code, "image": f"{name}.png", "short_name": name}
    return facts | {"category": category, "subcategory": subcategory}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three packages as npm leaves them, with a few emoji, packed."""
    root = tmp_path_factory.mktemp("emoji")
    google = root / "emoji-datasource-google"
    folders = (
        google / "img/google/64",
        root / "emoji-datasource-twitter/img/twitter/64",
        root / "@lobehub/fluent-emoji-3d/assets",
    )
    for folder in folders:
        folder.mkdir(parents=True)
    listed = []
    for code, category, subcategory, tones in EMOJI:
        entry = made(code, category, subcategory)
        variants = {tone: made(f"{code}-{tone}", category, subcategory) for tone in tones}
        listed.append(entry | {"skin_variations": variants})
        for one in (entry, *variants.values()):
            for folder, size, suffix in zip(
                folders, (64, 64, 256), ("png", "png", "webp"), strict=True
            ):
                image = Image.new("RGBA", (size, size))  # transparent, with a red square
                image.paste((255, 0, 0, 255), (size // 4, size // 4, size // 2, size // 2))
                image.save(folder / f"{one['unified'].lower()}.{suffix}", lossless=True)
    (folders[2] / "1f436.webp").unlink()  # not every set draws everything
    (google / "emoji.json").write_text(json.dumps(listed))
    fetch.pack(root, root / "emoji.npz")
    return root / "emoji.npz"


def test_images_lie_on_white_with_what_they_show(packed: Path) -> None:
    with np.load(packed) as data:
        assert data["images"].shape == (3 * 10 - 1, 64, 64, 3)
        np.testing.assert_array_equal(data["images"][:, 2, 2], 255)
        np.testing.assert_allclose(data["images"][:, 24, 24], [[255, 0, 0]] * 29, atol=2)
        assert "skin-tone" not in data["classes"]
        shown = dict(zip(data["unified"], data["classes"][data["label"]], strict=True))
        assert shown["1F44B-1F3FF"] == "hand-fingers-open"
        assert shown["1F431"] == "animal-mammal"


def test_a_design_is_held_out_in_every_tone_gender_and_set(packed: Path) -> None:
    assert fetch.design_of("1F44B-1F3FF") == fetch.design_of("1F44B") == "1F44B"
    assert fetch.design_of("1F468-1F3FD-200D-1F680") == fetch.design_of("1F469-200D-1F680")
    assert fetch.design_of("1F3C3-200D-2640-FE0F") == fetch.design_of("1F3C3")
    assert fetch.design_of("1F436") != fetch.design_of("1F431")
    with np.load(packed) as data:
        held = {d for d, out in zip(data["design"], data["held_out"], strict=True) if out}
        kept = {d for d, out in zip(data["design"], data["held_out"], strict=True) if not out}
    assert held == {"1F450"}
    assert len(kept) == 5
    assert not held & kept


def test_designs_are_drawn_alike_but_faces_and_hands_more_often(packed: Path) -> None:
    images, labels, chances, classes = train.training_images(packed)
    with np.load(packed) as data:
        kept = ~data["held_out"]
        design, kinds = data["design"][kept], data["classes"][data["label"][kept]]
    assert images.shape == (len(design), 48, 16, 16)
    assert classes == 4
    assert labels.max() < classes
    for one in set(design):
        shown = design == one
        favoured = kinds[shown][0] in ("face-smiling", "hand-fingers-open")
        assert chances[torch.from_numpy(shown)].sum() == pytest.approx(6 if favoured else 1)


def test_timesteps_of_a_batch_are_spread() -> None:
    drawn = train.spread_timesteps(50, torch.Generator().manual_seed(0))
    assert sorted((drawn // 20).tolist()) == list(range(50))


def test_the_loss_is_weighted_within_bounds() -> None:
    scheduler = network.build_scheduler()
    clean = torch.zeros(1000, 48, 1, 1)
    labels = torch.zeros(1000, dtype=torch.long)
    asked: dict[str, torch.Tensor] = {}

    class Ones:
        def __init__(self, sample: torch.Tensor) -> None:
            self.sample = sample

    def model(noisy: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor) -> Ones:
        asked.update(timesteps=timesteps, labels=class_labels)
        return Ones(torch.ones_like(noisy))

    loss = train.batch_loss(model, scheduler, clean, labels, 7, torch.Generator().manual_seed(0))
    ratio = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    assert loss == pytest.approx(float(ratio.clamp(0.05, 5).mean()), rel=1e-4)
    assert set(asked["labels"].tolist()) == {0, 7}
    assert 60 < int((asked["labels"] == 7).sum()) < 140


def run_training(packed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Any:
    given = f"--packed {packed} --work {folder} --weights {folder / 'model'} --batch-size 2"
    monkeypatch.setattr(sys, "argv", ["train", *given.split(), *more])
    threads = torch.get_num_threads()
    train.main()
    torch.set_num_threads(threads)
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def test_training_goes_on_from_a_checkpoint_and_from_exported_weights(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "WIDTHS", (32, 32))
    monkeypatch.setattr(train, "build_network", small)
    monkeypatch.setattr(export, "build_network", small)
    warm = ("--warm-up", "1")
    whole = run_training(packed, tmp_path / "whole", monkeypatch, "--steps", "4", *warm)
    run_training(packed, tmp_path / "parts", monkeypatch, "--steps", "2", *warm)
    parts = run_training(packed, tmp_path / "parts", monkeypatch, "--steps", "4", *warm)
    assert (parts["step"], parts["seen"]) == (4, 8)
    for name, value in whole["ema"].items():
        torch.testing.assert_close(parts["ema"][name], value)
    classes = export.describe_classes(packed)
    assert sum(one["share"] for one in classes) == pytest.approx(1, abs=1e-3)
    export.export(whole, classes, tmp_path / "fresh" / "model")
    fresh = run_training(packed, tmp_path / "fresh", monkeypatch, "--steps", "5", *warm)
    assert (fresh["step"], fresh["seen"]) == (5, 10)
    for name, value in whole["ema"].items():  # one step of Adam away, from halves
        torch.testing.assert_close(fresh["network"][name], value, atol=3e-3, rtol=3e-3)


def small(classes: int) -> Any:
    """A network that steps in no time."""
    return SMALL(classes, (32, 32))


SMALL = network.build_network


@pytest.fixture(scope="module")
def pipe() -> EmojiPipeline:
    torch.manual_seed(0)
    made_ = EmojiPipeline(small(4), network.build_scheduler())
    made_.set_progress_bar_config(disable=True)
    return made_


def test_guidance_leans_on_the_class(pipe: EmojiPipeline) -> None:
    sample = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 3])
    with torch.no_grad():
        free, given, guided = (
            pipe.predict(sample, 500, torch.tensor(which), scale)
            for which, scale in (([4, 4], 1.0), ([1, 3], 1.0), (labels.tolist(), 3.0))
        )
        folded = torch.nn.functional.pixel_unshuffle(sample, 4)
        plain = pipe.unet(folded, 500, labels).sample
    assert given.shape == sample.shape
    torch.testing.assert_close(torch.nn.functional.pixel_unshuffle(given, 4), plain)
    torch.testing.assert_close(guided, free + 3 * (given - free), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(given, free)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++"])
def test_recorded_it_is_called_as_it_is_and_comes_back(
    scheduler: str, pipe: EmojiPipeline, tmp_path: Path
) -> None:
    from asced_recorders.pipelines.scheduler_names import make_scheduler

    own = EmojiPipeline(pipe.unet, make_scheduler(scheduler, pipe.scheduler, None))
    own.set_progress_bar_config(disable=True)
    prompts = [{"prompt": "", "label": label} for label in (2, 0, 3)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    store = tmp_path / "runs.zarr"
    record(
        own,
        store,
        runs=3,
        steps=4,
        batch_size=3,
        prompts=tmp_path / "labels.jsonl",
        guidance_scale=2.0,
    )
    ds = open_runs(store)
    assert ds["sample"].shape == (3, 3, 64, 64)
    assert ds["label"].values.tolist() == [2, 0, 3]
    assert ds["image"].shape == (3, 64, 64, 3)
    seeds = [torch.Generator().manual_seed(seed) for seed in range(3)]
    plain = own([2, 0, 3], 2.0, 4, seeds, output_type="latent").images
    torch.testing.assert_close(torch.from_numpy(ds["sample"].values), plain, atol=1e-4, rtol=1e-4)
    again = open_runs(replay(store, tmp_path / "again.zarr", strategy="none", pipeline=own))
    np.testing.assert_allclose(again["sample"].values, ds["sample"].values, atol=1e-4)


def test_wrong_classes_are_named(pipe: EmojiPipeline) -> None:
    with pytest.raises(ValueError, match="from 0 to 4"):
        pipe(class_labels=[0, 5], num_inference_steps=2)


@pytest.mark.pages
def test_the_folder_loads_with_diffusers_alone_and_samples(tmp_path: Path) -> None:
    script = f"""
import sys, torch
sys.path[:] = [path for path in sys.path if path != {str(network.FOLDER.parents[2])!r}]
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained({str(network.FOLDER)!r}, trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
seeds = [torch.Generator().manual_seed(seed) for seed in range(2)]
images = pipe([0, 5], 2.0, 10, seeds, output_type="np").images
print(images.shape, images[:, :2].mean() > 0.9, images.min() < 0.6)
print([n for n in sys.modules if n.startswith(("asced", "experiments"))])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["(2, 64, 64, 3) True True", "[]"]
    weights = network.FOLDER / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < export.MOST_BYTES


def test_the_classes_of_the_folder_are_those_of_the_network() -> None:
    classes = json.loads((network.FOLDER / "classes.json").read_text())
    config = json.loads((network.FOLDER / "unet" / "config.json").read_text())
    assert [one["label"] for one in classes] == list(range(config["num_class_embeds"] - 1))
    assert sum(one["share"] for one in classes) == pytest.approx(1, abs=0.01)


def test_labels_by_eye_come_back_to_their_runs(tmp_path: Path) -> None:
    images = np.zeros((12, 64, 64, 3), np.uint8)
    written = labelling.write_sheets(images, ["face"] * 12, tmp_path, twice=4, columns=2, rows=4)
    for path in written:
        with Image.open(path) as sheet:
            assert sheet.size == (400, 848)
    order = json.loads((tmp_path / "order.json").read_text())
    assert sorted(run for run, turn in order if turn == 0) == list(range(12))
    assert len({run for run, turn in order if turn == 1}) == 4
    broken = order[0][0]
    rows = labelling.read_notes("0 broken 1 2 30 40\n3 unsure  # two eyes?\n", order)
    (row,) = (row for row in rows if row["run"] == broken and row["pass"] == 0)
    assert (row["label"], row["x"], row["height"]) == ("broken", "1", "40")
    assert sum(row["label"] == "whole" for row in rows) == 14
    seen_again = [number for number, (_, turn) in enumerate(order) if turn == 1]
    first = {run: number for number, (run, turn) in enumerate(order) if turn == 0}
    notes = "".join(
        f"{number} broken\n{first[order[number][0]]} broken\n" for number in seen_again[:2]
    )
    assert labelling.agreement(labelling.read_notes(notes, order))["kappa"] == 1.0
    worse = labelling.read_notes(notes + f"{seen_again[2]} broken\n", order)
    assert labelling.agreement(worse)["kappa"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="expected 'number broken"):
        labelling.read_notes("99 broken", order)


def test_boxes_become_masks_and_a_picture(tmp_path: Path) -> None:
    rows = labelling.read_notes("0 broken 4 2 10 20\n1 broken\n", [(7, 0), (8, 0), (9, 0), (7, 1)])
    labelling.write_boxes(rows, tmp_path / "boxes")
    assert [path.name for path in (tmp_path / "boxes").iterdir()] == ["7.png"]
    mask = np.asarray(Image.open(tmp_path / "boxes" / "7.png")) > 0
    assert mask[2:22, 4:14].all()
    assert mask.sum() == 200
    images = np.full((10, 64, 64, 3), 255, np.uint8)
    assert labelling.picture(images, rows, each=1, scale=2).size == (128, 3 * 128)


def test_sheets_of_several_sets_are_blind_and_every_look_is_kept(tmp_path: Path) -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    sets = [
        blind.Shown(name, images[part], np.arange(3), np.full(3, 60))
        for name, part in (("plain", slice(3)), ("other", slice(3, 6)))
    ]
    assert len(blind.write(sets, tmp_path)) == 1
    key = [tuple(cell) for cell in json.loads((tmp_path / "key.json").read_text())]
    assert sorted(key) == [(name, run) for name in ("other", "plain") for run in range(3)]
    assert key != sorted(key)  # in random order
    first = "\n".join(f"{cell} broken 1 2 3 4" for cell in range(4))
    rows = blind.collect(key, [("one", first), ("two", "3 whole\n4 whole\n")])
    assert len(rows) == 6
    seen = [row for row in rows if (row["set"], row["run"]) == key[3]]
    assert [(row["viewer"], row["pass"], row["label"]) for row in seen] == [
        ("one", 0, "broken"),
        ("two", 1, "whole"),
    ]
    assert seen[0]["width"] == "3"


def test_a_summary_counts_first_looks_and_compares_second_ones() -> None:
    rows = [
        {"set": name, "run": run, "pass": turn, "viewer": viewer, "label": word, "x": box}
        for name, run, turn, viewer, word, box in (
            ("plain", "0", "0", "one", "broken", "3"),
            ("plain", "0", "1", "two", "whole", ""),
            ("plain", "1", "0", "one", "whole", ""),
            ("plain", "1", "1", "two", "whole", ""),
            ("other", "0", "0", "one", "broken", ""),
            ("other", "1", "0", "two", "unsure", ""),
        )
    ]
    lines = blind.shares(rows).splitlines()[2:]
    assert lines[0].startswith("| `plain` | 2 | 0 | 50 % (")
    assert lines[1].startswith("| `other` | 2 | 1 | 100 % (")
    found = blind.steadiness(rows)
    assert (found["runs"], found["equal"]) == (2, 0.5)
    assert found["with a box, whole to the second"] == 1.0
    assert found["broken by viewer"] == {"one": pytest.approx(2 / 3, abs=1e-3), "two": 0.0}


def test_pairs_are_the_same_runs_of_every_set() -> None:
    images = np.zeros((6, 64, 64, 3), np.uint8)
    one = blind.Shown("recorded", images, np.arange(6), np.arange(6))
    other = blind.Shown("box", images[:4], np.array([1, 2, 4, 5]), np.arange(4))
    first, second = blind.paired([one, other], 3)
    assert first.runs.tolist() == second.runs.tolist()
    assert set(first.runs.tolist()) < {1, 2, 4, 5}
    assert len(second.images) == 3


def test_masks_that_hit_their_own_box_are_told_from_those_that_like_the_middle() -> None:
    rng = np.random.default_rng(0)
    where = {
        run: (int(x), int(y), int(x) + 12, int(y) + 12)
        for run, (x, y) in enumerate(rng.integers(0, 50, (40, 2)))
    }
    given = places.box_masks(where, np.arange(40), 64)
    assert (given.sum((1, 2)) == 144).all()
    middle = np.zeros_like(given)
    middle[:, 26:38, 26:38] = True
    hits, likes = places.placed(given, given), places.placed(middle, given)
    assert hits["inside"] == pytest.approx(1)
    assert hits["more"]["low"] > 0.8
    assert likes["more"]["low"] <= 0 <= likes["more"]["high"]
    assert (
        places.placed(np.zeros_like(given) | (np.arange(40) < 7)[:, None, None], given)["runs"] == 7
    )
    for area in (60, 144, 300):
        assert places.sized(given[0], area).sum() == area
    assert (places.sized(given[0], 60) <= given[0]).all()
    assert (places.sized(given[0], 300) >= given[0]).all()


def test_committed_labels_are_whole() -> None:
    with (network.FOLDER / "drawn-labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    looks = [(row["set"], row["run"], row["pass"]) for row in rows]
    assert len(set(looks)) == len(looks) == 5418
    assert len({look[:2] for look in looks}) == 5018
    assert {row["label"] for row in rows} == set(labelling.WORDS)
    for row in rows:
        given = [row[name] for name in labelling.BOX]
        assert all(given) or not any(given)
        if all(given):
            x, y, width, height = map(int, given)
            assert 0 <= x < x + width <= 64 and 0 <= y < y + height <= 64, row  # noqa: PT018
