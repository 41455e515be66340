from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sample_stories import PROMPT, direct, multi_step, reflection, stories

from interloom.adaptive import released
from interloom.adaptive.released import Discarded
from interloom.adaptive.story import Story
from interloom.errors import InterloomError

ALL = [direct(), reflection(3), multi_step(5)]
FORMS = ("sharegpt", "messages", "chatml")


def without_extra(value):
    """As others write it."""
    if isinstance(value, dict):
        return {k: without_extra(v) for k, v in value.items() if k != released.EXTRA}
    return [without_extra(v) for v in value] if isinstance(value, list) else value


@given(stories)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_form_reads_back_what_it_wrote(tmp_path: Path, story: Story):
    assert released.read_result(released.write_result(story, tmp_path / "r")) == story
    released.write_rollouts([story], tmp_path / "rollouts.jsonl")
    assert list(released.read_rollouts(tmp_path / "rollouts.jsonl")) == [story]
    for form in FORMS:
        released.write_sft([story], tmp_path / form, form)
        assert list(released.read_sft(tmp_path / form, form)) == [story]


def test_result_has_the_released_fields(tmp_path: Path):
    record = json.loads(released.write_result(multi_step(2), tmp_path).read_text())
    assert set(record) - {released.EXTRA} == {
        "task_id", "edit_key", "original_image_path", "edit_prompt", "direct_edit_image_path",
        "evaluation", "reflect", "multi_step", "final_edited_image_path", "failure_reason",
        "original_success",
    }  # fmt: skip
    assert record["original_success"] is False
    assert record["evaluation"]["instruction_score"] == 2
    assert set(record["multi_step"][0]) == {"step_instruction", "step_image_path", "evaluation"}
    assert (tmp_path / record["final_edited_image_path"]).is_file()
    assert json.loads(released.write_result(direct(), tmp_path).read_text())["original_success"]


def test_discarded_tasks_keep_their_reason(tmp_path: Path):
    gone = Discarded(prompt=PROMPT, reason="missing_knowledge")
    assert released.read_result(released.write_result(gone, tmp_path)) == gone


def test_results_of_others_are_read_and_failed_reflections_pruned(tmp_path: Path):
    path = released.write_result(multi_step(2), tmp_path / "a")
    record = without_extra(json.loads(path.read_text()))
    failed = json.loads(released.write_result(reflection(1), tmp_path / "a").read_text())
    record["reflect"] = without_extra(failed["reflect"])
    record["evaluation"]["quality_reasoning"] = "soft edges"
    path.write_text(json.dumps(record))
    story = released.read_result(path)
    assert isinstance(story, Story) and story.mode == "multi_step" and not story.rounds
    assert story.first.evaluation.reasoning == "instruction: red sun missing; quality: soft edges"


@pytest.mark.parametrize(
    ("thinking", "analysis", "plan"),
    [
        ("**Failure Analysis**: no sun\n**Improvement Plan**: add it", "no sun", "add it"),
        ("add the sun", "instruction 2 of 5, quality 4 of 5, knowledge 2 of 5", "add the sun"),
    ],
)
def test_reflections_in_other_words(tmp_path: Path, thinking, analysis, plan):
    path = released.write_result(reflection(1), tmp_path)
    record = json.loads(path.read_text())
    record["reflect"][0]["reflect_thinking"] = thinking
    path.write_text(json.dumps(record))
    story = released.read_result(path)
    assert isinstance(story, Story)
    said = story.rounds[0].reflection
    assert (said.failure_analysis, said.improvement_plan) == (analysis, plan)


def test_rollouts_take_texts_and_pictures_apart(tmp_path: Path):
    released.write_rollouts(ALL, tmp_path / "r.jsonl")
    direct_, reflected, planned = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert set(planned) - {released.EXTRA} == {
        "instruction", "source_images", "explanation", "assistant_text", "intermediate_steps",
        "final_image", "reflections",
    }  # fmt: skip
    assert len(planned["intermediate_steps"]) == 6 and not planned["reflections"]
    assert len(reflected["reflections"]) == 3 and not reflected["intermediate_steps"]
    assert reflected["reflections"][-1]["next_image"] == reflected["final_image"]
    assert direct_["assistant_text"].startswith("<image><evaluate>")


def test_sft_forms_have_their_shape(tmp_path: Path):
    for form in FORMS:
        assert released.write_sft(ALL, tmp_path / form, form) == 3
    chat = json.loads((tmp_path / "sharegpt").read_text())[1]
    assert [turn["from"] for turn in chat["conversations"]] == ["human", "gpt"]
    assert chat["conversations"][0]["value"] == "<image>a red sun at the center"
    assert len(chat["images"]) == 5
    messages = json.loads((tmp_path / "messages").read_text())[0]["messages"]
    assert [turn["role"] for turn in messages] == ["user", "assistant"]
    line = (tmp_path / "chatml").read_text().splitlines()[0]
    assert json.loads(line)["text"].startswith("<|im_start|>user\n")


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda r: r["evaluation"].pop("quality_score"), "field 'quality_score': missing"),
        (lambda r: r["evaluation"].update(quality_score=9), "less than or equal to 5"),
        (lambda r: r["multi_step"].pop(), "at least 2 sub-steps"),
        (lambda r: r["multi_step"][0].update(step_image_path="x.png"), "no image 'x.png'"),
        (lambda r: r["multi_step"][0].update(step_image_path=None), "an image is missing"),
        (lambda r: r.update(edit_prompt=3), "expected str, found int"),
        (lambda r: r.update(edit_prompt="a <evaluate>"), "cannot stand in their text"),
    ],
)
def test_complaints_about_results_name_file_and_field(tmp_path: Path, break_it, said):
    path = released.write_result(multi_step(2), tmp_path)
    record = json.loads(path.read_text())
    break_it(record)
    path.write_text(json.dumps(record))
    with pytest.raises(InterloomError, match=said) as caught:
        released.read_result(path)
    assert str(path) in str(caught.value)


def test_complaints_about_rollouts_and_exports(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    released.write_rollouts([direct()], path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"assistant_text": "<image>"}))
    with pytest.raises(InterloomError, match=r"record 0.*no story \(evaluation-missing"):
        list(released.read_rollouts(path))
    path.write_text(json.dumps(record | {"assistant_text": "<image><image>"}))
    with pytest.raises(InterloomError, match="1 images for 2 marks"):
        list(released.read_rollouts(path))
    released.write_sft([direct()], path, "messages")
    with pytest.raises(InterloomError, match="field 'conversations': expected one"):
        list(released.read_sft(path, "sharegpt"))


def test_a_folder_of_results(tmp_path: Path):
    for number, story in enumerate(ALL):
        released.write_result(story, tmp_path / f"task-{number}")
    assert list(released.read_folder_of_results(tmp_path)) == ALL
    with pytest.raises(InterloomError, match=r"no result\.json"):
        released.read_folder_of_results(tmp_path / "nothing")
