import json

import pytest

from lora_lightning import recipe
from lora_lightning.caption.config import PREVIEW_PICTURES, CaptionConfig
from lora_lightning.caption.presets import advice
from lora_lightning.caption.preview import sample
from lora_lightning.check import Report, check
from lora_lightning.checks.others import check_captioner_memory
from lora_lightning.errors import InputError, RecipeError
from lora_lightning.runs.gpu import Gpu


def parsed(**caption):
    return recipe.parse({"name": "mine", "caption": caption})


@pytest.mark.parametrize(
    ("caption", "says"),
    [
        ({"preset": "style", "prompt": "Mine."}, "exclude each other"),
        ({"several": "draw"}, "more_prompts"),
        ({"tagger": "wd-vit"}, "{tags}"),
        ({"tagger": "wd-vit", "preset": "style"}, "{tags}"),
        ({"prompt": "Tags: {tags}."}, "needs a tagger"),
        ({"endpoint": "localhost:8000"}, "address such as"),
        ({"endpoint": "http://user:key@localhost/v1"}, "CAPTION_API_KEY"),
        ({"endpoint": "http://localhost/v1?key=1"}, "CAPTION_API_KEY"),
        ({"endpoint": "http://localhost/v1", "quantize": "nf4"}, "up to the server"),
        ({"preview": ("temperature=1",)}, "JSON object"),
        ({"preview": ('{"heat": 1}',)}, "'heat'"),
        ({"preview": ('{"pictures": "1"}',)}, "'pictures'"),
        ({"preview": ('{"temperature": 9}',)}, "temperature"),
        ({"preview": ("{}",) * 4}, "3 items"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(caption, says):
    with pytest.raises(RecipeError) as caught:
        parsed(**caption)
    assert says in caught.value.message


def test_a_recipe_that_was_written_out_can_be_read_again():
    mine = parsed(more_prompts=["A?", "B?"], several="draw", preview=[json.dumps({"top_p": 0.5})])
    assert recipe.parse(recipe.yaml.safe_load(mine.to_yaml())) == mine


def test_previews_are_the_section_with_changes():
    config = CaptionConfig(temperature=0.3, preview=('{"top_p": 0.5}', '{"preset": "object"}'))
    assert [each.temperature for each in config.previews()] == [0.3, 0.3]
    assert [each.top_p for each in config.previews()] == [0.5, 0.9]
    assert config.previews()[1].asked("THING")[0] != config.previews()[0].asked("THING")[0]
    assert all(each.preview == () for each in config.previews())


@pytest.mark.parametrize("count", [0, 1, 4, 5, 1000])
def test_previews_sample_all_over_the_dataset(count):
    chosen = sample(range(count))
    assert len(set(chosen)) == min(PREVIEW_PICTURES, count)
    assert chosen == sorted(chosen)
    assert count < 8 or chosen[-1] >= count // 2


@pytest.mark.parametrize(
    ("captioner", "prompt", "says"),
    [
        ("joycaption", CaptionConfig().prompt, ""),
        ("joycaption-alpha-two", CaptionConfig().prompt, "not trained"),
        ("joycaption", "Describe it in verse.", "not trained"),
        ("florence-2-large", "<CAPTION>", ""),
        ("florence-2-large", "Describe it.", "tasks only"),
        ("wd-vit", "Describe it.", "takes no prompt"),
        ("blip-2", "Describe it.", "takes no prompt"),
        ("qwen3-vl-8b", "Describe it in verse.", ""),
    ],
)
def test_advice_says_what_becomes_of_a_prompt(captioner, prompt, says):
    found = advice(captioner, prompt)
    assert says in found
    assert bool(found) is bool(says)


def test_check_warns_of_a_prompt_that_the_captioner_does_not_know(workspace, dataset, make_recipe):
    report = check(make_recipe(captioner="joycaption", prompt="Describe it in verse."), workspace, "caption")
    assert [problem.where for problem in report.warnings if problem.where != "caption.captioner"] == ["caption.prompt"]
    assert [problem.where for problem in report.blockers] == ["caption.captioner"]  # offline, and not here
    assert not check(make_recipe(), workspace, "caption").warnings


@pytest.mark.parametrize(("memory_mib", "quantize", "says"), [
    (12_288, "none", "needs 17 GB"), (12_288, "nf4", ""), (24_576, "none", ""), (0, "none", "on a CPU"),
])  # fmt: skip
def test_check_warns_of_a_captioner_that_is_too_large(memory_mib, quantize, says, monkeypatch):
    cards = [Gpu(0, "RTX", memory_mib, 0, 0, 0, 0.0)] if memory_mib else []
    monkeypatch.setattr("lora_lightning.checks.others.gpus", lambda: cards)
    report = Report()
    check_captioner_memory("joycaption", quantize, report)
    assert [says in problem.message for problem in report.warnings] == [True] * bool(says)


@pytest.mark.parametrize("caption", [{"prompt": "Describe {name}."}, {"prefix": "{trigger}, "}])
def test_check_blocks_a_trigger_word_that_is_not_there(workspace, dataset, make_recipe, caption):
    assert [problem.where for problem in check(make_recipe(**caption), workspace, "caption").blockers] == ["trigger"]
    assert not check(make_recipe(**caption, trigger="OHWX"), workspace, "caption").blockers


def test_check_asks_for_no_model_files_behind_an_endpoint(workspace, dataset, make_recipe):
    recipe = make_recipe(captioner="some-model", endpoint="http://localhost:1/v1")
    assert not check(recipe, workspace, "caption").blockers


def test_a_prompt_without_its_trigger_is_an_error_of_the_user():
    with pytest.raises(InputError, match="no trigger word"):
        CaptionConfig(prompt="Describe {trigger}.").asked("")
