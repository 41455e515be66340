"""The detector of ``transformers``: real classes with random weights, and COCO's names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_server import picture
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizerFast,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

from interloom.benchmarks import geneval
from interloom.benchmarks.detector import MOST, OTHER_NAMES, ObjectDetector, class_names
from interloom.benchmarks.geneval import COLOURS, Item, Wanted
from interloom.errors import InterloomError

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def coco() -> dict[int, str]:
    """The classes as COCO's detectors name them."""
    theirs = {ours: name for name, ours in OTHER_NAMES.items()}
    return dict(enumerate(theirs.get(name, name) for name in class_names()))


def save_detector(folder: Path, labels: dict[int, str]) -> Path:
    torch.manual_seed(0)
    config = YolosConfig(
        **SMALL, image_size=[64, 64], patch_size=16, num_detection_tokens=40, id2label=labels,
        label2id={name: key for key, name in labels.items()},
    )  # fmt: skip
    YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 64}).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    (folder / "words").mkdir(parents=True)
    letters = [chr(n) for n in range(33, 127)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: n for n, word in enumerate(words)}
    tokenizer = CLIPTokenizerFast(vocab=vocabulary, merges=[])
    config = CLIPConfig(
        text_config={**SMALL, "vocab_size": len(words), "max_position_embeddings": 77,
                     "eos_token_id": len(words) - 1, "bos_token_id": len(words) - 2},
        vision_config={**SMALL, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    shown = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(shown, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> ObjectDetector:
    root = tmp_path_factory.mktemp("detector")
    return ObjectDetector(
        str(save_detector(root / "yolos", coco())), str(save_clip(root / "clip")), batch_size=2
    )


def test_every_class_of_the_prompts_is_known():
    names = set(class_names())
    assert len(names) == 80
    asked = {w.name for item in geneval.load(geneval.shipped()) for w in item.include}
    assert asked <= names


def test_things_are_found_with_boxes_and_wanted_colours(
    detector: ObjectDetector, monkeypatch: pytest.MonkeyPatch
):
    # Random weights are never sure: let everything count.
    monkeypatch.setattr("interloom.benchmarks.detector.THRESHOLD", 0.0)
    monkeypatch.setattr("interloom.benchmarks.detector.COUNTING_THRESHOLD", 0.0)
    plain = Item(0, "single_object", "", (Wanted("dog", 1),))
    found = detector.detect([picture(side=48), picture("blue"), picture()], [plain] * 3)
    assert len(found) == 3
    everything = [one for several in found if isinstance(several, list) for one in several]
    assert {one.name for one in everything} <= set(class_names())
    assert all(one.colour is None and 0 <= one.score <= 1 for one in everything)
    for several in found:
        assert isinstance(several, list)
        names = [one.name for one in several]
        assert max(map(names.count, names)) <= MOST
    # Now ask for the colour of something that is there.
    name = everything[0].name
    wanted = Item(1, "colors", "", (Wanted(name, 1, "red"),))
    ((*again,),) = detector.detect([picture(side=48)], [wanted])
    assert {one.colour in COLOURS for one in again if one.name == name} == {True}
    assert {one.colour for one in again if one.name != name} <= {None}


def test_a_detector_without_the_classes_is_refused(tmp_path: Path):
    other = save_detector(tmp_path / "other", {0: "dog", 1: "wug"})
    clip = save_clip(tmp_path / "clip")
    with pytest.raises(InterloomError, match=r"does not know 79 of COCO's 80 classes \(airplane"):
        ObjectDetector(str(other), str(clip))


def test_a_model_that_is_not_there_is_one_error(tmp_path: Path):
    with pytest.raises(InterloomError, match=r"grading\.detector: .*nowhere"):
        ObjectDetector(str(tmp_path / "nowhere"), str(tmp_path / "nowhere"))
