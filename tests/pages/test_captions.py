"""Edit captions without losing any."""

import json

import pytest
import yaml

from lora_lightning.datasets import alternates, editing, ledger
from lora_lightning.datasets.store import Dataset
from lora_lightning.runs.files import write_json
from lora_lightning.ui import captioner, drafts, editor, filters
from lora_lightning.ui.bulk import entries
from lora_lightning.ui.filters import toggled


def box(page, dataset, place):
    picture = dataset.pictures()[place]
    return page.text_area(key=f"caption.photographs.{picture.id}.{picture.version}")


def choose(page, key, value):
    """Set the widget of a choice, whatever kind it is."""
    kinds = (page.selectbox, page.segmented_control, page.radio)
    next(each for kind in kinds for each in kind if each.key == key).set_value(value).run()
    assert not page.exception, page.exception[0].message


def shown(page) -> list[str]:
    """The pictures whose captions are in view."""
    return [each.label for each in page.text_area if each.key.startswith("caption.photographs.")]


@pytest.fixture
def captioned(dataset) -> Dataset:
    """Captions with something to find: a loop, a watermark, a trigger in one of them, one beyond CLIP's tokens."""
    astronaut, brick, camera = dataset.pictures()
    dataset.write_caption(astronaut.id, "MYSTYLE, an astronaut. " + "The suit is orange and has many pockets. " * 9,
                          author="captioner", details={"prompt": "Describe it."})  # fmt: skip
    dataset.write_caption(brick.id, "A wall of red bricks. There is a watermark in the corner.", author="captioner")
    dataset.write_caption(camera.id, "A man with a red scarf looks into a camera.", author="human")
    return dataset


@pytest.fixture
def open_with(open_page):
    """Open the captions with parts that are folded away at first."""

    def opened(*parts: str, **query: str):
        page = open_page("captions", dataset="photographs", **query)
        for part in parts:
            page.session_state[part] = True
        page.run()
        assert not page.exception, page.exception[0].message
        return page

    return opened


def test_leaving_a_box_saves_a_version_by_a_person(open_page, dataset, texts):
    page = open_page("captions", dataset="photographs")
    box(page, dataset, 0).set_value("an astronaut smiles").run()
    assert not page.exception
    picture = dataset.pictures()[0]
    assert (picture.caption, picture.author, picture.version) == ("an astronaut smiles", "human", 2)
    assert "✓ Saved" in texts(page)


def test_undo_brings_the_text_before_back(open_page, dataset):
    page = open_page("captions", dataset="photographs")
    box(page, dataset, 0).set_value("an astronaut smiles").run()
    picture = dataset.pictures()[0]
    page.button(key=f"caption.photographs.{picture.id}.{picture.version}.undo").click().run()
    assert dataset.pictures()[0].caption == "an astronaut in orange"
    assert box(page, dataset, 0).value == "an astronaut in orange"


@pytest.mark.parametrize(("button", "kept"), [("mine", "mine"), ("theirs", "theirs")])
def test_a_caption_that_changed_meanwhile_shows_both_texts(open_page, dataset, texts, button, kept):
    page = open_page("captions", dataset="photographs")
    written_in = box(page, dataset, 0)
    picture = dataset.pictures()[0]
    dataset.write_caption(picture.id, "theirs", author="captioner")
    written_in.set_value("mine").run()
    assert dataset.pictures()[0].caption == "theirs"
    assert "changed elsewhere" in texts(page)
    page.button(key=f"conflict.{picture.sha256}.{button}").click().run()
    assert dataset.pictures()[0].caption == kept
    assert "changed elsewhere" not in texts(page)


def test_the_start_button_counts_what_the_captioner_would_write(open_page, dataset, texts):
    page = open_page("captions", dataset="photographs")
    assert "Caption 1 picture" in texts(page)
    by_rule = {"replace_machine": "Caption 2 pictures", "replace_all": "Caption 3 pictures"}
    for rule, label in by_rule.items():
        choose(page, "caption.caption.existing", rule)
        assert label in texts(page)


def test_a_working_captioner_shows_its_progress_and_cannot_be_started_twice(open_page, dataset, make_run, texts):
    make_run("photographs", "running", live=True, verb="caption", phase="captioning", done=1, total=3)
    page = open_page("captions", dataset="photographs")
    assert page.get("progress")[0].proto.text == "Captioning 1 of 3"
    assert next(button for button in page.button if button.label == "Caption 1 picture").disabled


def test_when_all_are_captioned_training_is_next(open_page, dataset, texts):
    dataset.write_caption(dataset.pictures()[2].id, "a man with a camera", author="human")
    assert "Train on this dataset" in texts(open_page("captions", dataset="photographs"))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["astronaut.png", "brick.png", "camera.png"]),
        ("RED", ["brick.png", "camera.png"]),
        ("camera.png", ["camera.png"]),
        ("author=human AND NOT caption:MYSTYLE", ["camera.png"]),
        ("tokens>77", ["astronaut.png"]),
        ("flagged:watermark OR flagged:loop", ["astronaut.png", "brick.png"]),
        ("zebra", []),
    ],
)
def test_the_find_box_filters_by_words_and_terms(open_page, captioned, query, names):
    assert shown(open_page("captions", dataset="photographs", find=query)) == names


def test_a_mistake_in_the_query_is_shown_with_its_position_and_lets_nothing_be_edited(open_with, captioned, texts):
    page = open_with("bulk.new", find="caption:red AND")
    assert "position 16" in texts(page)
    assert "a term is missing here" in texts(page)
    assert shown(page) == []
    page.text_input(key="bulk.find.0").set_value("red").run()
    assert page.button(key="bulk.apply").disabled


def test_a_chip_filters_and_clicked_again_lets_go(open_page, captioned, texts):
    page = open_page("captions", dataset="photographs")
    chips = page.pills(key="captions.chips")
    assert {"1 by a person", "2 by a machine"} < set(chips.options)
    chips.select("flagged:watermark").run()
    assert page.text_input(key="find").value == "flagged:watermark"
    assert shown(page) == ["brick.png"]
    assert "remove the sentence" in texts(page)
    page.pills(key="captions.chips").unselect("flagged:watermark").run()
    assert page.text_input(key="find").value == ""
    assert len(shown(page)) == 3


def test_a_chip_keeps_what_was_typed(open_page, captioned):
    page = open_page("captions", dataset="photographs", find="red OR orange")
    page.pills(key="captions.chips").select("author=human").run()
    assert page.text_input(key="find").value == "(red OR orange) AND author=human"
    assert shown(page) == ["camera.png"]


@pytest.mark.parametrize(
    ("text", "term", "now"),
    [
        ("", "empty", "empty"),
        ("empty", "empty", ""),
        ("red empty", "empty", "red"),
        ("NOT empty", "empty", "NOT empty AND empty"),
        ("tokens>", "flagged:loop", "flagged:loop"),
        ("NOT (a OR b)", "NOT (a OR b)", ""),
    ],
)
def test_a_click_puts_a_term_into_the_query_or_takes_it_out(text, term, now):
    assert toggled(text, term) == now


def test_a_word_filters_the_captions_that_have_it(open_with, captioned):
    page = open_with("captions.words")
    phrases = page.pills(key="captions.phrases")
    assert "red 2" in phrases.options
    phrases.select("word:red").run()
    assert shown(page) == ["brick.png", "camera.png"]


def test_a_trigger_word_is_checked_and_remembered(open_page, captioned):
    page = open_page("captions", dataset="photographs")
    assert not any("Trigger" in chip for chip in page.pills(key="captions.chips").options)
    page.text_input(key="captions.trigger").set_value("MYSTYLE").run()
    assert any("2 Trigger missing" in chip for chip in page.pills(key="captions.chips").options)
    later = open_page("captions", dataset="photographs", find="flagged:no-trigger")
    assert shown(later) == ["brick.png", "camera.png"]


def test_tokens_are_counted_and_what_is_cut_is_shown_as_an_estimate(open_page, captioned, texts):
    page = open_page("captions", dataset="photographs", find="astronaut.png")
    said = texts(page)
    assert "tokens CLIP 104/77 (estimate), T5 103/512 (estimate)" in said
    assert "CLIP does not read: " in said
    assert "T5 does not read" not in said
    assert "Token counts are estimates" in said


def test_the_model_s_own_tokenizer_counts_exactly(open_page, captioned, tiny_flux, texts):
    page = open_page("captions", dataset="photographs", find="camera.png")
    page.text_input(key="captions.model.base").set_value(str(tiny_flux)).run()
    assert not page.exception
    assert "tokens CLIP 36/77, T5 45/32" in texts(page)
    assert "T5 does not read: nto a camera." in texts(page)
    assert "estimate" not in texts(page)


def test_captions_are_sorted_by_their_length(open_page, captioned):
    page = open_page("captions", dataset="photographs")
    page.selectbox(key="captions.order").set_value("Fewest tokens").run()
    assert shown(page) == ["camera.png", "brick.png", "astronaut.png"]


def test_a_bulk_edit_changes_what_is_in_view_and_is_taken_back_and_done_again(open_with, captioned, texts):
    before = [picture.caption for picture in captioned.pictures()]
    page = open_with("bulk.new", find="NOT name:camera*")
    page.text_input(key="bulk.find.0").set_value("red").run()
    page.text_input(key="bulk.replacement.0").set_value("crimson & gold").run()
    assert "1 of the 2 captions in view would change" in texts(page)
    preview = next(each.proto.body for each in page.get("html") if "<ins" in each.proto.body)
    assert "crimson &amp; gold" in preview
    assert "camera.png" not in preview
    assert [picture.caption for picture in captioned.pictures()] == before
    page.button(key="bulk.apply").click().run()
    assert [picture.caption for picture in captioned.pictures()] == [
        before[0], before[1].replace("red", "crimson & gold"), before[2],
    ]  # fmt: skip
    assert "1 caption changed" in texts(page)
    edit = ledger.bulks(captioned)[0].id
    page.button(key=f"bulk.undo.{edit}").click().run()
    assert [picture.caption for picture in captioned.pictures()] == before
    redo = page.button(key=f"bulk.undo.{edit}")
    assert redo.label == "Redo"
    redo.click().run()
    assert "crimson" in captioned.pictures()[1].caption


@pytest.mark.parametrize(
    ("kind", "field", "text", "begins", "ends"),
    [
        ("Put first", "first", "photo of", "photo of A wall", "corner."),
        ("Put last", "last", ", film grain", "A wall", "corner., film grain"),
        ("Insert trigger", "trigger", "MYSTYLE", "MYSTYLE, A wall", "corner."),
        ("Remove sentences", "sentence", "watermark", "A wall", "red bricks."),
    ],
)
def test_every_kind_of_edit_does_what_it_says(open_with, captioned, kind, field, text, begins, ends):
    page = open_with("bulk.new")
    page.segmented_control(key="bulk.kind.0").set_value(kind).run()
    page.text_input(key=f"bulk.{field}.0").set_value(text).run()
    page.button(key="bulk.apply").click().run()
    assert not page.exception
    caption = captioned.pictures()[1].caption
    assert caption.startswith(begins)
    assert caption.endswith(ends)


def test_a_caption_that_changes_after_the_preview_is_left_alone_and_named(open_with, captioned, texts):
    page = open_with("bulk.new")
    page.text_input(key="bulk.find.0").set_value("red").run()
    camera = captioned.pictures()[2]
    captioned.write_caption(camera.id, "a red rose", author="human")
    page.button(key="bulk.apply").click().run()
    assert captioned.pictures()[2].caption == "a red rose"
    assert "1 caption changed, 1 conflict" in texts(page)
    assert "camera.png" in texts(page)


def test_undoing_leaves_what_was_typed_since(open_with, captioned, texts):
    edit = editing.replace("red", "blue")
    done = editing.apply(captioned, edit, editing.preview(captioned.pictures(), edit))
    captioned.write_caption(captioned.pictures()[2].id, "typed since", author="human")
    page = open_with()
    page.button(key=f"bulk.undo.{done.id}").click().run()
    assert [picture.caption[:11] for picture in captioned.pictures()[1:]] == ["A wall of r", "typed since"]
    assert "1 conflict" in texts(page)


def test_a_mistake_in_an_expression_is_shown_with_its_position(open_with, captioned, texts):
    page = open_with("bulk.new")
    page.toggle(key="bulk.regex.0").set_value(True)
    page.text_input(key="bulk.find.0").set_value("re(d").run()
    assert "position" in texts(page)
    assert not page.exception


def test_an_edit_that_was_undone_twice_stands_as_done(dataset):
    edit = editing.prefix("photo of")
    first = editing.apply(dataset, edit, editing.preview(dataset.pictures(), edit))
    states = []
    latest = first.id
    for _ in range(3):
        entry = entries(ledger.bulks(dataset))[0]
        states.append((entry.undone, entry.latest.id == latest))
        latest = ledger.undo(dataset, latest).id
    assert states == [(False, True), (True, True), (False, True)]


def test_history_tells_who_wrote_what_and_restores_it(open_with, captioned, texts):
    picture = captioned.pictures()[0]
    key = f"caption.photographs.{picture.id}.{picture.version}.history"
    page = open_with(key)
    assert "written by captioner" in texts(page)
    assert "Describe it" in texts(page)
    page.button(key=f"{key}.1").click().run()
    now = captioned.pictures()[0]
    assert (now.caption, now.author, now.version) == ("an astronaut in orange", "captioner", 3)


def test_a_version_is_not_restored_over_a_newer_one(open_with, captioned, texts):
    picture = captioned.pictures()[0]
    key = f"caption.photographs.{picture.id}.{picture.version}.history"
    page = open_with(key)
    captioned.write_caption(picture.id, "newer", author="human")
    page.button(key=f"{key}.1").click().run()
    assert captioned.pictures()[0].caption == "newer"
    assert "was changed in the meantime" in texts(page)


def test_a_filter_that_leaves_fewer_pages_shows_what_it_found(open_page, captioned, monkeypatch):
    monkeypatch.setattr(editor, "PER_PAGE", 1)
    page = open_page("captions", dataset="photographs")
    page.get("pagination")[0].set_value(3).run()
    assert shown(page) == ["camera.png"]
    page.text_input(key="find").set_value("NOT empty AND NOT camera").run()
    assert shown(page) == ["astronaut.png"]
    page.text_input(key="find").set_value("brick.png").run()
    assert shown(page) == ["brick.png"]


def test_very_many_captions_are_checked_when_asked(open_page, captioned, monkeypatch, texts):
    monkeypatch.setattr(filters, "CHECKED_UNASKED", 2)
    page = open_page("captions", dataset="photographs", find="flagged:watermark")
    assert "run the caption checks first" in texts(page)
    page.toggle(key="captions.checked").set_value(True).run()
    assert shown(page) == ["brick.png"]


def test_words_that_name_a_style_are_flagged_for_a_style_lora(open_page, captioned):
    captioned.write_caption(captioned.pictures()[2].id, "An oil painting of a man.", author="human")
    page = open_page("captions", dataset="photographs")
    page.toggle(key="captions.style").set_value(True).run()
    page.pills(key="captions.chips").select("flagged:style").run()
    assert shown(page) == ["camera.png"]


def test_trigger_and_model_begin_as_the_train_page_has_them(open_page, captioned, workspace):
    drafts.save(workspace, "train", {"name": "x", "trigger": "MYSTYLE", "model": {"base": "schnell"}})
    page = open_page("captions", dataset="photographs")
    assert page.text_input(key="captions.trigger").value == "MYSTYLE"
    assert page.text_input(key="captions.model.base").value == "schnell"
    assert "captions" not in {path.stem for path in (workspace.home / "drafts").iterdir()}


@pytest.fixture
def started(monkeypatch):
    """Jobs that the page starts, as recipes; they do not run."""
    found = []
    monkeypatch.setattr(
        captioner.launch, "start", lambda workspace, verb, name, text: found.append(yaml.safe_load(text))
    )
    return found


def test_the_captions_in_view_that_a_machine_wrote_are_rolled_again(open_page, captioned, started):
    page = open_page("captions", dataset="photographs", find="flagged:loop OR flagged:watermark OR author=human")
    assert len(shown(page)) == 3
    button = page.button(key="captions.reroll")
    assert button.label == "Re-roll 2 captions"
    button.click().run()
    ids = [picture.id for picture in captioned.pictures() if picture.author == "captioner"]
    (job,) = started
    assert job["caption"]["pictures"] == ",".join(map(str, ids))
    assert job["caption"]["existing"] == "replace_machine"
    assert job["seed"] > 0
    page.text_input(key="find").set_value("author=human").run()
    assert all(each.key != "captions.reroll" for each in page.button)


def test_the_form_starts_a_captioner_with_what_it_shows(open_page, dataset, workspace, started):
    drafts.save(workspace, "train", {"name": "x", "trigger": "MYSTYLE"})
    page = open_page("captions", dataset="photographs")
    page.button(key="caption.start").click().run()
    assert (started[0]["dataset"]["name"], started[0]["trigger"]) == ("photographs", "MYSTYLE")
    assert started[0]["caption"]["existing"] == "keep"


def test_a_prompt_is_composed_of_trained_sentences(open_with, dataset):
    page = open_with("caption.compose")
    choose(page, "compose.length", "short")
    page.multiselect(key="compose.extras").select("lighting").run()
    composed = page.code[0].value
    assert composed.startswith("Write a short")
    page.button(key="compose.use").click().run()
    assert any(area.value == composed for area in page.text_area)


def test_one_by_one_walks_accepts_and_finds_what_to_look_at(open_page, captioned, texts):
    page = open_page("captions", dataset="photographs", layout="One by one")
    assert shown(page) == ["astronaut.png"]
    assert "1 of 3, 2 to look at" in texts(page)
    page.button(key="review.accept").click().run()
    astronaut = captioned.pictures()[0]
    assert (astronaut.author, shown(page)) == ("human", ["brick.png"])
    assert captioned.history(astronaut.id)[-1].details == {"accepted": "from captioner"}
    page.button(key="review.next").click().run()
    assert shown(page) == ["camera.png"]
    assert page.button(key="review.next").disabled
    page.button(key="review.look").click().run()
    assert shown(page) == ["astronaut.png"]
    page.button(key="review.look").click().run()
    assert shown(page) == ["brick.png"]
    page.button(key="review.back").click().run()
    assert (shown(page), page.query_params["picture"]) == (["astronaut.png"], str(astronaut.id))


def test_one_by_one_begins_at_the_picture_of_the_address(open_page, captioned):
    camera = captioned.pictures()[2]
    page = open_page("captions", dataset="photographs", layout="One by one", picture=str(camera.id))
    assert shown(page) == ["camera.png"]
    page.text_input(key="find").set_value("zebra").run()
    assert shown(page) == []


def test_accepting_leaves_a_caption_that_changed_meanwhile(open_page, captioned, texts):
    page = open_page("captions", dataset="photographs", layout="One by one")
    captioned.write_caption(captioned.pictures()[0].id, "newer", author="captioner")
    page.button(key="review.accept").click().run()
    assert captioned.pictures()[0].author == "captioner"
    assert "was changed in the meantime" in texts(page)


def test_what_an_edit_did_is_shown_and_taken_back_for_one_caption(open_with, captioned):
    edit = editing.replace("red", "blue")
    done = editing.apply(captioned, edit, editing.preview(captioned.pictures(), edit))
    brick, camera = captioned.pictures()[1:]
    page = open_with(f"bulk.show.{done.id}")
    bodies = "".join(html.proto.body for html in page.get("html"))
    assert "red</del>" in bodies
    assert "blue</ins>" in bodies
    page.button(key=f"bulk.restore.{done.id}.{brick.id}").click().run()
    now = captioned.pictures()
    assert now[1].caption.startswith("A wall of red")
    assert now[1].author == "captioner"
    assert "blue" in now[2].caption
    assert all(each.key != f"bulk.restore.{done.id}.{brick.id}" for each in page.button)
    assert page.button(key=f"bulk.restore.{done.id}.{camera.id}")


def test_short_captions_and_tags_are_written_beside_the_caption(open_with, dataset):
    first = dataset.pictures()[0]
    page = open_with(f"more.{first.id}")
    page.text_area(key=f"more.photographs.{first.id}.short.0").set_value("an astronaut").run()
    page.session_state[f"more.{first.id}"] = True
    page.run()
    page.text_area(key=f"more.photographs.{first.id}.tags.0").set_value("astronaut, orange").run()
    assert {kind: each.text for kind, each in alternates.current(dataset)[first.id].items()} == {
        "short": "an astronaut", "tags": "astronaut, orange",
    }  # fmt: skip
    assert dataset.pictures()[0].version == first.version


def test_accepting_saves_what_was_typed_last(open_page, captioned):
    page = open_page("captions", dataset="photographs", layout="One by one")
    box(page, captioned, 0).set_value("typed")
    page.button(key="review.accept").click().run()
    assert not page.exception
    first = captioned.pictures()[0]
    assert (first.caption, first.author, first.version) == ("typed", "human", 3)
    assert shown(page) == ["brick.png"]


@pytest.fixture
def compared(make_run, dataset, workspace):
    """A comparison of two settings that ended, as the job leaves it."""
    made = make_run("photographs", "completed", verb="caption")
    texts = [{"text": "short"}, {"text": "*long* and detailed"}]
    report = {
        "settings": [{"seconds_per_picture": 0.5}, {"seconds_per_picture": 1.25}],
        "pictures": [{"id": picture.id, "file": picture.name, "captions": texts} for picture in dataset.pictures()[:2]],
    }
    asked = {"caption": {"preview": ["{}", '{"temperature": 0.2}']}}
    made.recipe_path.write_text(yaml.safe_dump({"name": "photographs"} | asked))
    write_json(made.path / "result.json", {"made": {"dataset": str(dataset.folder)}, "report": {"preview": report}})
    return made


def test_settings_are_compared_and_one_of_them_taken_over(open_page, compared, workspace, texts):
    page = open_page("captions", dataset="photographs")
    said = texts(page)
    assert "temperature 0\\.2" in said or "temperature 0.2" in said
    assert "1.25 s a picture" in said
    assert said.count("\\*long\\* and detailed") == 2
    page.button(key=f"preview.use.{compared.name}.B").click().run()
    assert not page.exception
    assert drafts.load(workspace, "caption")["caption"]["temperature"] == 0.2


def test_a_comparison_is_started_with_what_differs(open_with, dataset, started):
    page = open_with("preview.open")
    choose(page, "preview.B.caption.preset", "style")
    page.session_state["preview.open"] = True
    page.run()
    page.button(key="preview.start").click().run()
    (job,) = started
    assert [json.loads(text) for text in job["caption"]["preview"]] == [{}, {"preset": "style"}]


def test_pictures_that_could_not_be_described_are_tried_again(open_page, make_run, dataset, started, texts):
    made = make_run("photographs", "completed", verb="caption")
    failed = [{"id": 3, "file": "camera.png", "reason": "the answer was empty"}]
    write_json(made.path / "result.json", {"made": {"dataset": str(dataset.folder)}, "report": {"failed": failed}})
    page = open_page("captions", dataset="photographs")
    assert "the answer was empty" in texts(page)
    page.button(key="caption.again").click().run()
    assert (started[0]["caption"]["pictures"], started[0]["caption"]["existing"]) == ("3", "keep")


@pytest.fixture
def with_tags(captioned) -> Dataset:
    """Tags of every picture: two by a machine, one by a person, one with a loop."""
    astronaut, brick, camera = captioned.pictures()
    captioned.write_caption(astronaut.id, "astronaut, red suit", author="wd-vit", kind="tags")
    captioned.write_caption(brick.id, "brick, " + "red wall, " * 9, author="wd-vit", kind="tags")
    captioned.write_caption(camera.id, "camera, red scarf", author="human", kind="tags")
    return captioned


def tags(dataset) -> list[str]:
    return [picture.caption for picture in dataset.pictures(kind="tags")]


def test_tags_are_filtered_checked_edited_together_and_taken_back(open_with, with_tags, texts):
    captions, before = [picture.caption for picture in with_tags.pictures()], tags(with_tags)
    page = open_with("bulk.new", kind="Tags", find="word:red AND NOT flagged:loop")
    assert [each.value for each in page.text_area if each.key.startswith("tags.photographs.")] == [before[0], before[2]]
    assert any("1 Loop" in chip for chip in page.pills(key="captions.chips").options)
    page.text_input(key="bulk.find.0").set_value("red").run()
    page.text_input(key="bulk.replacement.0").set_value("crimson").run()
    page.button(key="bulk.apply").click().run()
    assert tags(with_tags) == ["astronaut, crimson suit", before[1], "camera, crimson scarf"]
    (edit,) = ledger.bulks(with_tags)
    assert (edit.kind, edit.captions) == ("tags", 2)
    page.session_state[f"bulk.show.{edit.id}"] = True
    page.run()
    page.button(key=f"bulk.restore.{edit.id}.{with_tags.pictures()[0].id}").click().run()
    assert tags(with_tags) == [before[0], before[1], "camera, crimson scarf"]
    page.button(key=f"bulk.undo.{edit.id}").click().run()
    assert not page.exception
    assert tags(with_tags) == before
    assert [picture.caption for picture in with_tags.pictures()] == captions
    assert [picture.version for picture in with_tags.pictures(kind="short")] == [0, 0, 0]


def test_tags_have_a_box_a_history_and_two_windows_of_their_own(open_with, with_tags, texts):
    first = with_tags.picture(with_tags.pictures()[0].id, "tags")
    key = f"tags.photographs.{first.id}.{first.version}"
    page = open_with(kind="Tags")
    page.text_area(key=key).set_value("astronaut").run()
    stored = with_tags.picture(first.id, "tags")
    assert (stored.caption, stored.author, stored.version) == ("astronaut", "human", 2)
    page.session_state[key := f"tags.photographs.{first.id}.2.history"] = True
    page.run()
    page.button(key=f"{key}.1").click().run()
    stored = with_tags.picture(first.id, "tags")
    assert (stored.caption, stored.author, stored.version) == ("astronaut, red suit", "wd-vit", 3)
    with_tags.write_caption(first.id, "theirs", author="human", kind="tags")
    page.text_area(key=f"tags.photographs.{first.id}.3").set_value("mine").run()
    assert "changed elsewhere" in texts(page)
    page.button(key=f"conflict.{first.sha256}.mine").click().run()
    assert with_tags.picture(first.id, "tags").caption == "mine"
    assert with_tags.picture(first.id).author == "captioner"


def test_tags_in_view_are_rolled_again_as_tags_and_accepted_one_by_one(open_page, with_tags, started):
    page = open_page("captions", dataset="photographs", kind="Tags", find="flagged:loop OR author=human")
    page.button(key="captions.reroll").click().run()
    (job,) = started
    brick = with_tags.pictures()[1].id
    assert (job["caption"]["pictures"], job["caption"]["written_as"]) == (str(brick), "tags")
    page = open_page("captions", dataset="photographs", kind="Tags", layout="One by one")
    page.button(key="review.reroll").click().run()
    assert started[1]["caption"]["pictures"] == str(with_tags.pictures()[0].id)
    page.button(key="review.accept").click().run()
    accepted = with_tags.pictures(kind="tags")[0]
    assert (accepted.caption, accepted.author) == ("astronaut, red suit", "human")
