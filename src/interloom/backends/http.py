"""Our generator service, or any other that draws seeded pictures behind the Images API.

One or many servers with the same model take turns. A server that cannot be reached or does not
say at ``/health`` that it is well is passed over until it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interloom.backends.lanes import Lane
from interloom.backends.openai import OpenAIImages
from interloom.backends.remote import Remote
from interloom.errors import InterloomError

if TYPE_CHECKING:
    from interloom.settings.models import GeneratorSettings


class HttpImages(OpenAIImages):
    """The service's model, called with the steps, guidance and seed that the settings give.

    These go by the names that vLLM-Omni and SGLang know too.

    Raises:
        InterloomError: no server is named.
    """

    decided_by = frozenset(["model", "image_size", "steps", "guidance", "call"])

    def __init__(self, remote: Remote, settings: GeneratorSettings) -> None:
        super().__init__(remote, settings)
        if not remote.settings.base_urls:
            raise InterloomError(f"{remote.setting('base_urls')}: name the generator's servers")

    def address(self, lane: Lane) -> str:
        return f"{lane.url}/v1"

    def extras(self, seed: int) -> dict[str, Any]:
        return {
            "response_format": "b64_json",
            "seed": seed,
            "num_inference_steps": self.settings.steps,
            "guidance_scale": self.settings.guidance,
            **self.settings.call,
        }
