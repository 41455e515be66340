"""Things in pictures, found by a detector of ``transformers`` and coloured by CLIP, for GenEval.

Any object detection model with the 80 classes of COCO will do. GenEval's own, a Mask2Former in an
old stack, does not install with current libraries: scores by this one carry its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from interloom import images
from interloom.benchmarks.geneval import (
    COLOURS,
    COUNTING_THRESHOLD,
    THRESHOLD,
    Box,
    Detection,
    Item,
)
from interloom.errors import InterloomError
from interloom.records import Failure

if TYPE_CHECKING:
    from PIL.Image import Image

OTHER_NAMES = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}
"""What COCO calls a class, and GenEval's prompts."""
MOST = 16
"""Detections of a class in a picture that are looked at, the surest first."""


def class_names() -> tuple[str, ...]:
    """The 80 classes as GenEval's prompts name them."""
    listed = resources.files("interloom.benchmarks") / "geneval_prompts" / "object_names.txt"
    return tuple(listed.read_text("utf-8").split("\n")[:80])


class ObjectDetector:
    """A detector and a CLIP model.

    Args:
        detector: folder or hub name of an object detection model.
        clip: folder or hub name of the CLIP model that names colours.

    Raises:
        InterloomError: a model cannot be loaded, or the detector does not know COCO's classes.
    """

    def __init__(
        self, detector: str, clip: str, *, device: str = "cpu", batch_size: int = 8
    ) -> None:
        from transformers import (
            AutoImageProcessor,
            AutoModelForObjectDetection,
            CLIPModel,
            CLIPProcessor,
        )

        try:
            self._processor: Any = AutoImageProcessor.from_pretrained(detector)
            self._model: Any = AutoModelForObjectDetection.from_pretrained(detector)
            self._clip_processor: Any = CLIPProcessor.from_pretrained(clip)
            self._clip: Any = CLIPModel.from_pretrained(clip)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InterloomError(f"grading.detector: {detector} and {clip}: {reason}") from error
        self._model.to(device).eval()
        self._clip.to(device).eval()
        labels = {int(key): str(name) for key, name in self._model.config.id2label.items()}
        self._names = {key: OTHER_NAMES.get(name, name) for key, name in labels.items()}
        unknown = set(class_names()) - set(self._names.values())
        if unknown:
            some = ", ".join(sorted(unknown)[:5])
            raise InterloomError(
                f"grading.detector: {detector} does not know {len(unknown)} of COCO's 80 classes "
                f"({some}, …)"
            )
        self.name = f"{detector} + {clip}"
        self._device, self._batch_size = device, batch_size

    def detect(
        self, pictures: Sequence[bytes], wanted: Sequence[Item]
    ) -> list[list[Detection] | Failure]:
        """What is in each picture; colours only of things whose colour its item asks for."""
        found: list[list[Detection] | Failure] = []
        for start in range(0, len(pictures), self._batch_size):
            part = slice(start, start + self._batch_size)
            shown = [images.from_bytes(picture) for picture in pictures[part]]
            for image, item, boxes in zip(shown, wanted[part], self._boxes(shown), strict=True):
                found.append(self._coloured(image, item, boxes))
        return found

    def _boxes(self, shown: Sequence[Image]) -> list[list[Detection]]:
        import torch

        inputs = self._processor(images=list(shown), return_tensors="pt").to(self._device)
        with torch.no_grad():
            outputs = self._model(**inputs)
        sizes = [(image.height, image.width) for image in shown]
        lowest = min(THRESHOLD, COUNTING_THRESHOLD)
        results = self._processor.post_process_object_detection(
            outputs, threshold=lowest, target_sizes=sizes
        )
        found = []
        for result in results:
            triples = zip(result["scores"], result["labels"], result["boxes"], strict=True)
            kept: dict[str, list[Detection]] = {}
            for score, label, box in sorted(triples, key=lambda triple: -float(triple[0])):
                name = self._names[int(label)]
                kept.setdefault(name, []).append(
                    Detection(name, float(score), Box(*(float(edge) for edge in box)))
                )
            found.append([one for several in kept.values() for one in several[:MOST]])
        return found

    def _coloured(self, image: Image, item: Item, found: Sequence[Detection]) -> list[Detection]:
        asked = {wanted.name for wanted in item.include if wanted.colour}
        return [
            Detection(one.name, one.score, one.box, self._colour(image, one))
            if one.name in asked
            else one
            for one in found
        ]

    def _colour(self, image: Image, found: Detection) -> str | None:
        """The likeliest of the ten colours of what is in the box; none for an empty box."""
        import torch

        left, top, right, bottom = found.box
        crop = (max(0, int(left)), max(0, int(top)), min(image.width, int(right) + 1),
                min(image.height, int(bottom) + 1))  # fmt: skip
        if crop[0] >= crop[2] or crop[1] >= crop[3]:
            return None
        texts = [f"a photo of a {colour} {found.name}" for colour in COLOURS]
        inputs = self._clip_processor(
            text=texts, images=image.crop(crop), return_tensors="pt", padding=True
        ).to(self._device)
        with torch.no_grad():
            likeness = self._clip(**inputs).logits_per_image[0]
        return COLOURS[int(likeness.argmax())]
