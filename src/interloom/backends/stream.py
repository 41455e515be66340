"""One stream of tokens for text and pictures (Emu3), and what holds a model to its form.

A picture stands in the stream as Emu3 writes it: ``<|image start|>``, its size in tokens
(``3*3``), ``<|image token|>``, the rows of visual tokens with a row end each, the frame end and
``<|image end|>``. While a model writes, ``SpanConstraint`` lets it choose visual tokens only inside
a picture, and text only everywhere else.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    Emu3ForConditionalGeneration,
    LogitsProcessor,
    PreTrainedTokenizerBase,
)

VISUAL = -1
"""In a picture's form: the place of a visual token."""


class StreamError(ValueError):
    """Tokens that are no stream: a picture that is cut off or not of its form."""


@dataclass(frozen=True)
class Grid:
    """A picture's size in tokens."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}*{self.columns}"


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn in one kind of span; temperature 0 takes the likeliest.

    ``top_k`` 0 leaves all tokens of that kind in.
    """

    temperature: float = 0.0
    top_k: int = 0


GREEDY = Sampling()


@dataclass(frozen=True)
class Limits:
    """What one completion may use. ``images`` counts the pictures that it makes.

    When they are used up no further picture can begin, and after the token ``end_after`` (if
    given) one more is written, which shows whether the model would have gone on, and the completion
    ends. Right after ``end_after`` the end is made likelier, by ``reluctance`` nats.
    """

    tokens: int
    images: int | None = None
    end_after: int | None = None
    reluctance: float = 0.0


class Stream:
    """How text and pictures are written as tokens, and read back."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: Emu3ForConditionalGeneration
    ) -> None:
        self.tokenizer = tokenizer
        mapping = model.vocabulary_mapping
        self.visual = torch.tensor([mapping.img2bpe[code] for code in sorted(mapping.img2bpe)])
        """Token of each code of the picture tokenizer."""
        self.row_end = mapping.eol_token_id
        names = ("boi_token", "image_wrapper_token", "eof_token", "eoi_token")
        self.start, self.wrapper, self.frame_end, self.end = (
            int(tokenizer.convert_tokens_to_ids(getattr(tokenizer, name))) for name in names
        )
        self.bos, self.eos = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id)
        self._codes = {token: code for code, token in enumerate(self.visual.tolist())}

    def text(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def said(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        text = self.tokenizer.decode(list(tokens))
        assert isinstance(text, str)  # one row of tokens is one text
        return text

    def header(self, grid: Grid) -> list[int]:
        """What a picture begins with; a prompt that ends so asks for a picture."""
        return [self.start, *self.text(str(grid)), self.wrapper]

    def form(self, grid: Grid) -> list[int]:
        """A whole picture's tokens, with ``VISUAL`` where the model chooses."""
        row = [VISUAL] * grid.columns + [self.row_end]
        return [*self.header(grid), *(row * grid.rows), self.frame_end, self.end]

    def picture(self, codes: np.ndarray | torch.Tensor) -> list[int]:
        """Codes (rows, columns) as the tokens of a whole picture."""
        rows, columns = codes.shape
        chosen = iter(self.visual[torch.as_tensor(codes).flatten()].tolist())
        form = self.form(Grid(rows, columns))
        return [next(chosen) if token == VISUAL else token for token in form]

    def codes(self, tokens: Sequence[int]) -> np.ndarray:
        """The codes (rows, columns) of a whole picture's tokens.

        Raises:
            StreamError: they are not of a picture's form.
        """
        if self.wrapper not in tokens:
            raise StreamError("a picture without its beginning")
        first = list(tokens).index(self.wrapper)
        said = self.said(tokens[1:first]).strip()
        rows, _, columns = said.partition("*")
        if not (rows.isdigit() and columns.isdigit()):
            raise StreamError(f"a picture of the size {said!r}")
        grid = Grid(int(rows), int(columns))
        form = self.form(grid)
        fits = len(form) == len(tokens) and all(
            token in self._codes if wanted == VISUAL else token == wanted
            for token, wanted in zip(tokens, form, strict=True)
        )
        if not fits:
            raise StreamError(f"a picture that has not the form of {grid} tokens")
        chosen = [self._codes[t] for t, w in zip(tokens, form, strict=True) if w == VISUAL]
        return np.array(chosen).reshape(grid.rows, grid.columns)

    def spans(self, tokens: Sequence[int]) -> list[tuple[bool, list[int]]]:
        """Tokens cut where pictures begin and end: ``(is_picture, tokens)``; no span is empty.

        Raises:
            StreamError: a picture is cut off or not of its form.
        """
        spans: list[tuple[bool, list[int]]] = []
        rest = [t for t in tokens if t not in (self.bos, self.eos, self.pad)]
        while rest:
            start = rest.index(self.start) if self.start in rest else len(rest)
            if start:
                if self.end in rest[:start]:
                    raise StreamError("a picture's end without its beginning")
                spans.append((False, rest[:start]))
                rest = rest[start:]
                continue
            if self.end not in rest:
                raise StreamError("a picture that is cut off")
            stop = rest.index(self.end) + 1
            spans.append((True, rest[:stop]))
            rest = rest[stop:]
        return spans

    def not_text(self, size: int) -> torch.Tensor:
        """Mask (size,) of the tokens that cannot stand in text; a picture may begin there."""
        mask = torch.zeros(size, dtype=torch.bool)
        mask[self.visual] = True
        for token in (self.row_end, self.wrapper, self.frame_end, self.end, self.bos, self.pad):
            mask[token] = True
        placeholder = getattr(self.tokenizer, "image_token", None)
        if placeholder is not None:
            mask[self.tokenizer.convert_tokens_to_ids(placeholder)] = True
        return mask


class SpanConstraint(LogitsProcessor):
    """Holds every row of a batch to the form of its span, and samples each kind in its own way.

    Stateless: what span a row is in is read from its own tokens, so rows may be anywhere.
    """

    def __init__(
        self,
        stream: Stream,
        grid: Grid,
        vocabulary: int,
        prompt: int,
        limits: Sequence[Limits],
        *,
        text: Sampling,
        picture: Sampling,
    ) -> None:
        self.stream, self.prompt, self.text, self.picture = stream, prompt, text, picture
        self.form = torch.tensor(stream.form(grid))
        self.header = len(stream.header(grid))
        self.not_text = stream.not_text(vocabulary)
        self.not_visual = torch.ones(vocabulary, dtype=torch.bool)
        self.not_visual[stream.visual] = False
        none = 1 << 30
        self.images = torch.tensor([none if li.images is None else li.images for li in limits])
        self.end_after = torch.tensor(
            [VISUAL if li.end_after is None else li.end_after for li in limits]
        )
        self.reluctance = torch.tensor([limit.reluctance for limit in limits])

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) after the tokens (B, L)."""
        device, length = input_ids.device, input_ids.shape[1]
        where = torch.arange(length, device=device)
        started = torch.where(input_ids == self.stream.start, where, -1).amax(1)
        ended = torch.where(input_ids == self.stream.end, where, -1).amax(1)
        drawing = started > ended
        wanted = self.form.to(device)[(length - started).clamp(max=len(self.form) - 1)]
        # A prompt may end in a picture's beginning; that picture counts too.
        made = (input_ids[:, max(0, self.prompt - self.header) :] == self.stream.start).sum(1)
        used_up = made >= self.images.to(device)

        free = drawing & (wanted == VISUAL)
        banned = torch.where(
            free[:, None], self.not_visual.to(device), self.not_text.to(device)
        ).clone()
        banned[~drawing & used_up, self.stream.start] = True
        decides = input_ids[:, -1] == self.end_after.to(device)
        scores = scores.masked_fill(banned, -torch.inf)
        scores[:, self.stream.eos] += self.reluctance.to(device) * decides
        scores = torch.where(
            drawing[:, None], _sampled(scores, self.picture), _sampled(scores, self.text)
        )
        forced = torch.where(drawing & (wanted != VISUAL), wanted, VISUAL)
        finished = ~drawing & used_up & (input_ids[:, -2] == self.end_after.to(device))
        forced = torch.where(finished, self.stream.eos, forced)
        rows = forced != VISUAL
        scores[rows] = -torch.inf
        scores[rows, forced[rows]] = 0.0
        return scores


def _sampled(scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Scores from which plain sampling draws as ``sampling`` says."""
    keep = 1 if sampling.temperature == 0 else sampling.top_k
    if keep:
        least = scores.topk(min(keep, scores.shape[-1]), dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    return scores / (sampling.temperature or 1.0)
