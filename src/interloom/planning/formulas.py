"""The arithmetic of ``interloom plan``: floating-point operations, seconds, bytes.

Pure functions of numbers, in FLOP, seconds and bytes. Each is a rule of thumb that is right within
tens of percents; what is measured on the very machine always goes first.
"""

from __future__ import annotations

from math import ceil

BFLOAT16 = 2
FLOAT32 = 4


def training_flop(parameters: float, tokens: float, *, trained: float, recompute: bool) -> float:
    """Forward, backward, and the second forward pass of activation checkpointing.

    ``2·N·T`` forward, ``2·N·T`` for the gradients of activations, ``2·N_trained·T`` for those of
    weights, and ``2·N·T`` more where activations are computed twice (Kaplan et al. 2020, §2.1).

    >>> training_flop(8e9, 1e6, trained=8e9, recompute=True) / (8e9 * 1e6)
    8.0
    """
    passes = 4 + (2 if recompute else 0)
    return (passes * parameters + 2 * trained) * tokens


def forward_flop(parameters: float, tokens: float) -> float:
    """``2·N·T``: reading a prompt, or log probabilities under a model.

    >>> forward_flop(8e9, 1000)
    16000000000000.0
    """
    return 2 * parameters * tokens


def drawing_flop(
    parameters: float, tokens: float, *, reference_tokens: float, text_tokens: float, passes: int
) -> float:
    """One picture: every pass of the transformer goes over the picture, its reference and the text.

    ``2·N·(T_image + T_reference + T_text)·passes``, where guidance above 1 makes two passes a step.

    >>> drawing_flop(9e9, 4096, reference_tokens=4096, text_tokens=512, passes=4) / 1e12
    626.688
    """
    return 2 * parameters * (tokens + reference_tokens + text_tokens) * passes


def seconds(flop: float, *, peak: float, share: float) -> float:
    """Time on one card that reaches ``share`` of its ``peak`` (FLOP/s).

    >>> seconds(4e14, peak=1e15, share=0.4)
    1.0
    """
    return flop / (peak * share)


def decoding_seconds(
    answers: int,
    tokens: float,
    *,
    batch: int,
    weights: float,
    cache: float,
    bandwidth: float,
    gathering: float = 0.0,
) -> float:
    """Time in which one card writes ``answers`` of ``tokens`` each, ``batch`` at a time.

    Each token reads all weights once and the cache of each answer in the batch:
    ``⌈answers/batch⌉ · tokens · ((weights + batch·cache) / bandwidth + gathering)``, sizes in
    bytes, the bandwidth (bytes/s) as it is reached. ``cache`` is that of one answer at its mean
    length, ``gathering`` the seconds in which sharded weights come together.

    >>> decoding_seconds(16, 100, batch=8, weights=1.5e9, cache=0.0, bandwidth=1e12)
    0.3
    """
    each = (weights + batch * cache) / bandwidth + gathering
    return ceil(answers / batch) * tokens * each


def gathering_seconds(weights: float, *, processes: int, link: float) -> float:
    """Time in which a process gets what the others hold of ``weights`` (bytes) by a ``link``
    (bytes/s): for each token, where weights are sharded.

    >>> gathering_seconds(16e9, processes=8, link=1e11)
    0.14
    """
    return weights * (processes - 1) / processes / link


def cache_bytes(tokens: float, *, layers: int, kv_heads: int, head_dim: int) -> float:
    """Keys and values of one conversation in bfloat16: ``2·2·layers·kv_heads·head_dim·T``.

    >>> cache_bytes(1000, layers=36, kv_heads=8, head_dim=128) / 2**20
    140.625
    """
    return 2 * BFLOAT16 * layers * kv_heads * head_dim * tokens


def state_bytes(parameters: float, *, each: float, processes: int) -> float:
    """Weights, gradients and optimiser of one process of ``processes`` that share them.

    >>> state_bytes(8e9, each=16, processes=8) / 1e9
    16.0
    """
    return parameters * each / processes


def activation_bytes(
    tokens: float, *, hidden: int, layers: int, layer: float, recompute: bool
) -> float:
    """What the backward pass needs of ``tokens`` that go through at a time.

    With checkpointing the input of every layer (bfloat16) and one layer's insides, else the
    insides of all layers; ``layer`` is bytes per token and hidden unit of one layer.

    >>> activation_bytes(4096, hidden=4096, layers=36, layer=34, recompute=True) / 2**30
    1.65625
    """
    inside = tokens * hidden * layer
    return tokens * hidden * BFLOAT16 * layers + inside if recompute else inside * layers


def lora_parameters(rank: int, *, hidden: int, layers: int) -> float:
    """Trained parameters of LoRA on the seven projections of each layer.

    A projection from ``a`` to ``b`` has ``rank·(a + b)``; with a feed-forward width of 3·hidden and
    a quarter of the heads for keys and values that is 18.5 times ``hidden`` a layer.

    >>> lora_parameters(16, hidden=4096, layers=36) / 1e6
    43.646976
    """
    return 18.5 * hidden * rank * layers


def waiting_seconds(rewards: float, rollouts: float, *, parts: int) -> float:
    """How long the policy waits in a step for the rewards of its rollouts, cut into ``parts``.

    The last part's rewards are always waited for; those of the others run while the policy writes
    the next part, and what they take longer than that is waited for too.

    >>> waiting_seconds(40.0, 20.0, parts=1), waiting_seconds(40.0, 20.0, parts=4)
    (40.0, 25.0)
    """
    each, beside = rewards / parts, rollouts / parts
    return each + (parts - 1) * max(0.0, each - beside)
