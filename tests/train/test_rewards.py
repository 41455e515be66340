from __future__ import annotations

import ast
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interloom.records import Failure, Score
from interloom.train import rewards
from interloom.train.rewards import Weights, critic_rewards, format_reward, read_answer

YES = '{"previous_step_success": true, "refine_prompt": "add a red sun"}'
NO = '{"previous_step_success": false, "refine_prompt": "add a red sun at the top left"}'
PYTHON = "{'previous_step_success': False, 'refine_prompt': \"add a sun\"}"
OLD, NEW = Score(semantic=2, quality=6), Score(semantic=9, quality=8)
BROKEN = Failure(role="generator", reason="timeout")


def wrap(answer: str, think: str = "the sun is there") -> str:
    return f"<think>{think}</think><answer>{answer}</answer>"


# --- the released rules, written again from their description -------------------------------------


def released_fields(text: str) -> dict | None:
    block = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    if not block:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(block[1].strip())
        except (ValueError, SyntaxError):
            continue
        typed = (
            isinstance(value, dict)
            and isinstance(value.get("previous_step_success"), bool)
            and isinstance(value.get("refine_prompt"), str)
        )
        return value if typed else None
    return None


def released_format(text: str) -> float:
    """Answer readable, and where there is a think block it comes first. A missing one costs
    nothing."""
    fields = released_fields(text)
    think, answer = text.find("<think>"), text.find("<answer>")
    return float(fields is not None and (think < answer))


def released_accuracy(text: str, truth: bool) -> float:
    fields = released_fields(text)
    return float(fields is not None and fields["previous_step_success"] == truth)


# The third column says why we differ on purpose; empty where both must agree.
NO_THINK = "the released format pays 1 without a think block; ours does not"
STRICT = "the released search ignores what surrounds the blocks; we refuse it, also when serving"
PARITY = [
    # valid, in every writing
    (wrap(YES), 1.0, ""),
    (wrap(NO), 1.0, ""),
    (wrap(PYTHON), 1.0, ""),
    (wrap(YES, think=""), 1.0, ""),
    (wrap(YES, think="line\nline"), 1.0, ""),
    (wrap(f"\n{YES}\n"), 1.0, ""),
    (wrap(json.dumps(json.loads(YES), indent=2)), 1.0, ""),
    ("\n" + wrap(YES) + "\n", 1.0, ""),
    (wrap(YES).replace("</think>", "</think>\n"), 1.0, ""),
    (wrap('{"refine_prompt": "x", "previous_step_success": true}'), 1.0, ""),
    (wrap('{"previous_step_success": true, "refine_prompt": "x", "score": 3}'), 1.0, ""),
    (wrap('{"previous_step_success": false, "refine_prompt": "größer ☀"}'), 1.0, ""),
    (wrap('{"previous_step_success": false, "refine_prompt": "say \\"hi\\""}'), 1.0, ""),
    (wrap("{'previous_step_success': True, 'refine_prompt': 'x',}"), 1.0, ""),
    (wrap(YES, think="if a < b then {x}"), 1.0, ""),
    # an empty refined prompt is well-formed
    (wrap('{"previous_step_success": false, "refine_prompt": ""}'), 1.0, ""),
    (wrap('{"previous_step_success": true, "refine_prompt": " "}'), 1.0, ""),
    (wrap("{'previous_step_success': True, 'refine_prompt': ''}"), 1.0, ""),
    # no think block
    (f"<answer>{YES}</answer>", 0.0, NO_THINK),
    (f"<answer>{NO}</answer>", 0.0, NO_THINK),
    (f"<answer>{PYTHON}</answer>", 0.0, NO_THINK),
    (f"the sun is there</think><answer>{YES}</answer>", 0.0, NO_THINK),
    (f"the sun is there <answer>{YES}</answer>", 0.0, NO_THINK),
    (f"<think>not closed <answer>{YES}</answer>", 0.0, NO_THINK),
    (f"<thinking>t</thinking><answer>{YES}</answer>", 0.0, NO_THINK),
    # something around or inside the blocks
    ("Sure! " + wrap(YES), 0.0, STRICT),
    (wrap(YES) + " Anything else?", 0.0, STRICT),
    (wrap(YES).replace("</think>", "</think> so: "), 0.0, STRICT),
    (wrap(YES) + wrap(YES), 0.0, STRICT),
    (wrap(YES, think="<think>deep</think>"), 0.0, STRICT),
    (wrap(YES) + f"<answer>{NO}</answer>", 0.0, STRICT),
    (f"<think>a</think><think>b</think><answer>{YES}</answer>", 0.0, STRICT),
    (wrap(YES) + "</answer>", 0.0, STRICT),
    # wrong order
    (f"<answer>{YES}</answer><think>t</think>", 0.0, ""),
    (f"<answer>{NO}</answer> <think>late</think>", 0.0, ""),
    (f"<answer>{PYTHON}</answer>\n<think></think>", 0.0, ""),
    # no answer block
    ("", 0.0, ""),
    ("   ", 0.0, ""),
    ("yes", 0.0, ""),
    (YES, 0.0, ""),
    (f"<think>t</think>{YES}", 0.0, ""),
    (f"<think>t</think><answer>{YES}", 0.0, ""),
    ("<think>only thoughts</think>", 0.0, ""),
    (f"<think>t</think></answer>{YES}<answer>", 0.0, ""),
    (f"<think>t</think><ANSWER>{YES}</ANSWER>", 0.0, ""),
    # the answer does not parse
    (wrap(""), 0.0, ""),
    (wrap("true"), 0.0, ""),
    (wrap("null"), 0.0, ""),
    (wrap("[]"), 0.0, ""),
    (wrap("[true, 'x']"), 0.0, ""),
    (wrap('{"previous_step_success": true, "refine_prompt": "x"'), 0.0, ""),
    (wrap('{"previous_step_success": true "refine_prompt": "x"}'), 0.0, ""),
    (wrap("{previous_step_success: true, refine_prompt: x}"), 0.0, ""),
    (wrap("{'previous_step_success': true, 'refine_prompt': 'x'}"), 0.0, ""),
    (wrap("dict(previous_step_success=True, refine_prompt='x')"), 0.0, ""),
    (wrap("__import__('os').getcwd()"), 0.0, ""),
    (wrap(f"```json\n{YES}\n```"), 0.0, ""),
    (wrap(f"{YES}{YES}"), 0.0, ""),
    # fields missing or of the wrong type
    (wrap("{}"), 0.0, ""),
    (wrap('{"previous_step_success": true}'), 0.0, ""),
    (wrap('{"refine_prompt": "x"}'), 0.0, ""),
    (wrap('{"previous_step_success": "true", "refine_prompt": "x"}'), 0.0, ""),
    (wrap('{"previous_step_success": 1, "refine_prompt": "x"}'), 0.0, ""),
    (wrap('{"previous_step_success": null, "refine_prompt": "x"}'), 0.0, ""),
    (wrap('{"previous_step_success": true, "refine_prompt": null}'), 0.0, ""),
    (wrap('{"previous_step_success": true, "refine_prompt": ["x"]}'), 0.0, ""),
    (wrap('{"success": true, "refine_prompt": "x"}'), 0.0, ""),
    (wrap('{"Previous_Step_Success": true, "refine_prompt": "x"}'), 0.0, ""),
]


def test_parity_table_is_large_enough_and_has_no_twins():
    assert len(PARITY) >= 60
    assert len({text for text, _, _ in PARITY}) == len(PARITY)


@pytest.mark.parametrize(("text", "ours", "difference"), PARITY)
def test_format_and_accuracy_agree_with_the_released_rules_except_where_stated(
    text: str, ours: float, difference: str
):
    assert format_reward([text]) == [ours]
    assert (released_format(text) != ours) == bool(difference), released_format(text)
    for truth in (True, False):
        assert rewards.accuracy_reward([text], [truth]) == [released_accuracy(text, truth)]


@pytest.mark.parametrize("text", [text for text, _, difference in PARITY if not difference])
@pytest.mark.parametrize("truth", [True, False])
def test_composition_agrees_with_the_released_one(text: str, truth: bool):
    readable = read_answer(text) is not None
    after: rewards.After = "no image" if truth else NEW if readable else "unreadable"
    semantic, quality = (0.5, 0.5) if truth else ((7 / 10 + 1) / 2, (2 / 10 + 1) / 2)
    if after == "unreadable":
        semantic = quality = 0.0
    expected = 0.5 * released_format(text) + 0.5 * (
        0.2 * released_accuracy(text, truth) + 0.6 * semantic + 0.2 * quality
    )
    assert critic_rewards([text], [truth], [OLD], [after]).total == [pytest.approx(expected)]


# --- formulas by hand
# ------------------------------------------------------------------------------


def test_released_formula_by_hand():
    # 0.5·1 + 0.5·(0.2·1 + 0.6·(0.7 + 1)/2 + 0.2·(0.2 + 1)/2) = 0.5 + 0.5·(0.2 + 0.51 + 0.12)
    result = critic_rewards([wrap(NO)], [False], [OLD], [NEW])
    assert (result.semantic, result.quality) == ([0.85], [0.6])
    assert result.total == [pytest.approx(0.915)]


def test_paper_formula_by_hand():
    # step = (sqrt(9·8) − sqrt(2·6)) / 10; accuracy −1 for the wrong judgment
    step = (math.sqrt(72) - math.sqrt(12)) / 10
    result = critic_rewards(
        [wrap(NO), wrap(YES)], [False] * 2, [OLD] * 2, [NEW] * 2, formula="paper"
    )
    assert result.total == [
        pytest.approx(0.5 + 0.5 * 0.8 * step, abs=1e-6),
        pytest.approx(0.5 + 0.5 * (-0.2 + 0.8 * step), abs=1e-6),
    ]


def test_alpha_removes_either_half():
    answers, truth = [wrap(NO), wrap(YES)], [False, False]
    accuracy_only = critic_rewards(answers, truth, [OLD] * 2, [NEW, OLD], weights=Weights(alpha=1))
    assert accuracy_only.total == [1.0, 0.5]
    step_only = critic_rewards(answers, truth, [OLD] * 2, [NEW, NEW], weights=Weights(alpha=0))
    assert step_only.total[0] == step_only.total[1]


@pytest.mark.parametrize("formula", ["paper", "released"])
def test_a_failed_call_is_never_a_number(formula: rewards.Formula):
    result = critic_rewards([wrap(NO)] * 2, [False] * 2, [OLD] * 2, [BROKEN, NEW], formula=formula)
    assert result.total[0] is None and result.semantic[0] is None and result.quality[0] is None
    assert result.total[1] is not None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 1.0),
        ([1.0, 0.5, 1.0, 1.0], 0.5),
        ([0.3 + 0.6, 0.9, 0.1, 0.2], 0.5),  # tied but for float noise
        ([None, 0.5, 0.1, 0.2], 0.5),  # one number left: nothing to compare it with
        ([None, None, None, None], 1.0),
    ],
)
def test_zero_variance_share(values: list[float | None], expected: float):
    assert rewards.zero_variance_share(values, 2) == expected


@pytest.mark.parametrize(("count", "size"), [(4, 1), (5, 2), (0, 2)])
def test_zero_variance_share_refuses_no_groups(count: int, size: int):
    with pytest.raises(ValueError, match="do not divide"):
        rewards.zero_variance_share([0.0] * count, size)


scores = st.builds(Score, semantic=st.floats(0, 10, width=32), quality=st.floats(0, 10, width=32))


@given(
    st.sampled_from([text for text, _, _ in PARITY]),
    st.booleans(),
    st.tuples(scores, scores),
    st.builds(Weights, format=st.floats(0, 1), alpha=st.floats(0, 1), semantic=st.floats(0, 1)),
)
def test_released_total_stays_in_bounds_and_rises_with_the_new_score(
    text: str, truth: bool, change: tuple[Score, Score], weights: Weights
):
    old, new = change
    better = Score(semantic=10, quality=10)
    totals = critic_rewards(
        [text] * 2, [truth] * 2, [old] * 2, [new, better], weights=weights
    ).total
    assert totals[0] is not None and totals[1] is not None
    assert 0 <= totals[0] <= totals[1] + 1e-6 <= 1 + 2e-6
