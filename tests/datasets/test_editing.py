import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lightning.datasets import editing, ledger
from lora_lightning.datasets.importing import import_sources
from lora_lightning.datasets.ledger import Rewrite
from lora_lightning.datasets.names import one_line
from lora_lightning.datasets.store import Dataset
from lora_lightning.errors import CaptionConflict, DatasetError, InputError

CAPTIONS = {1: ("a red cat on a category list", "joycaption"), 2: ("A Cat sleeps.", "human"), 3: ("", "")}


@pytest.fixture
def trio(workspace, small_photos):
    import_sources(workspace, "trio", small_photos[:3])
    dataset = Dataset.open(workspace.dataset("trio"))
    for id, (caption, author) in CAPTIONS.items():
        if caption:
            dataset.write_caption(id, caption, author=author, details={"seed": 1})
    return dataset


def after(edit, caption):
    return edit.change(caption)


def state(dataset):
    return {p.id: (p.caption, p.author) for p in dataset.pictures()}


def run(dataset, edit):
    return editing.apply(dataset, edit, editing.preview(dataset.pictures(), edit))


def test_replace_plain_whole_words_and_any_case():
    text = "Cat, cat's category (cat)"
    assert after(editing.replace("cat", "dog"), text) == "Cat, dog's dogegory (dog)"
    assert after(editing.replace("cat", "dog", whole_words=True), text) == "Cat, dog's category (dog)"
    assert after(editing.replace("cat", "dog", whole_words=True, match_case=False), text) == "dog, dog's category (dog)"
    assert after(editing.replace("a.b", r"\1 \n"), "a.b axb") == r"\1 \n axb"


def test_replace_regex_with_groups():
    edit = editing.replace(r"(?P<colour>red|blue) (\w+)", r"\2, \g<colour>", is_regex=True)
    assert after(edit, "a red car, a blue dog") == "a car, red, a dog, blue"


@pytest.mark.parametrize(
    ("find", "replacement", "says"),
    [
        ("(cat", "", r"expression '\(cat' has a mistake at position 5: missing \)"),
        ("c**", "", "position 3: multiple repeat"),
        ("(cat)", r"\2", "replacement '.*' has a mistake: invalid group reference"),
        ("(cat)", r"\g<x>", "replacement '.*' has a mistake: unknown group"),
        ("cat", r"\q", "position 3: bad escape"),
        ("", "x", "nothing to look for"),
    ],
)
def test_mistakes_in_an_expression_are_named_with_their_place(find, replacement, says):
    with pytest.raises(InputError, match=says) as error:
        editing.replace(find, replacement, is_regex=True)
    assert error.value.hint


def test_an_expression_that_never_ends_is_cut_short_and_blocks_nobody(trio, monkeypatch):
    monkeypatch.setattr(editing, "CAPTION_SECONDS", 0.5)
    trio.write_caption(1, "a" * 40 + "!", author="human")
    ticks = []
    ticker = threading.Thread(target=lambda: [ticks.append(time.sleep(0.01)) for _ in range(20)])
    ticker.start()
    with pytest.raises(InputError, match="too long"):
        editing.preview(trio.pictures(), editing.replace("(a|aa)+$", "b", is_regex=True))
    assert len(ticks) == 20  # other threads ran meanwhile
    ticker.join()


def test_a_preview_shows_every_row_that_would_change_and_stores_nothing(trio):
    changes = editing.preview(trio.pictures(), editing.replace("cat", "dog", match_case=False, whole_words=True))
    assert [(c.picture, c.version, c.before, c.after) for c in sorted(changes, key=lambda c: c.picture)] == [
        (1, 1, "a red cat on a category list", "a red dog on a category list"),
        (2, 1, "A Cat sleeps.", "A dog sleeps."),
    ]
    assert state(trio) == CAPTIONS
    with pytest.raises(InputError, match="longer than 20,000 characters"):
        editing.preview(trio.pictures(), editing.replace("a", "x" * 9000))


def test_prefix_and_suffix_join_as_one_would_write_and_only_once():
    assert after(editing.prefix("a photo of"), "a cat") == "a photo of a cat"
    assert after(editing.prefix("("), "a cat") == "(a cat"
    assert after(editing.suffix(", soft light"), "a cat") == "a cat, soft light"
    assert after(editing.suffix("in soft light"), "a cat") == "a cat in soft light"
    for edit in (editing.prefix("a photo of"), editing.suffix(", soft light"), editing.insert_trigger("ohwx")):
        assert after(edit, after(edit, "a cat")) == after(edit, "a cat")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("a woman walks", "man, a woman walks"),  # ai-toolkit takes the substring for the trigger
        ("a man walks", "a man walks"),
        ("a Man walks", "a man walks"),
        ("man, man, a dog", "man, a dog"),
        ("man man walks", "man walks"),
    ],
)
def test_a_trigger_is_inserted_unless_it_is_there_as_a_whole_word(before, expected):
    assert after(editing.insert_trigger("man"), before) == expected
    with pytest.raises(InputError):
        editing.insert_trigger(" ")


def test_sentences_are_removed_whole():
    edit = editing.remove_sentences("watermark")
    text = 'A dog by Mr. Smith, 3.5 m tall. A Watermark reads "Me." It "sleeps." No watermarks! J. Doe is near.'
    assert after(edit, text) == 'A dog by Mr. Smith, 3.5 m tall. It "sleeps." J. Doe is near.'
    assert after(edit, "1girl, watermark, tree") == "1girl, watermark, tree"  # nothing would stay
    with pytest.raises(InputError):
        editing.remove_sentences(" ")


def test_a_bulk_edit_is_one_step_back_and_one_forth(trio):
    edit = editing.replace("cat", "dog", match_case=False, whole_words=True)
    done = run(trio, edit)
    assert (sorted(done.written), done.conflicts) == ([1, 2], [])
    edited = state(trio)
    assert edited == {1: ("a red dog on a category list", "joycaption"), 2: ("A dog sleeps.", "human"), 3: ("", "")}
    assert trio.history(1)[-1].details == {"bulk": done.id, "edit": "Replace 'cat' by 'dog'"}

    undone = ledger.undo(trio, done.id)
    assert state(trio) == CAPTIONS
    redone = ledger.undo(trio, undone.id)
    assert state(trio) == edited
    assert [(b.title, b.captions, b.undoes) for b in ledger.bulks(trio)] == [
        ("Undo: Undo: Replace 'cat' by 'dog'", 2, undone.id),
        ("Undo: Replace 'cat' by 'dog'", 2, done.id),
        ("Replace 'cat' by 'dog'", 2, None),
    ]
    assert len(ledger.bulks(trio)) == redone.id
    assert trio.undo(1).caption == "a red cat on a category list"  # the single undo agrees with the bulk one
    with pytest.raises(DatasetError, match="no edit number 77"):
        ledger.undo(trio, 77)


def test_a_bulk_undo_spares_what_was_touched_since(trio):
    done = run(trio, editing.suffix("today"))
    trio.write_caption(2, "typed by hand", author="human")
    undone = ledger.undo(trio, done.id)
    assert (undone.written, undone.conflicts) == ([1], [2])
    assert state(trio) == CAPTIONS | {2: ("typed by hand", "human")}
    again = ledger.undo(trio, done.id)
    assert (again.id, again.written, sorted(again.conflicts)) == (None, [], [1, 2])
    assert len(ledger.bulks(trio)) == 2


def test_a_caption_that_changed_since_the_preview_is_a_conflict(trio):
    edit = editing.suffix("today")
    changes = editing.preview(trio.pictures(), edit)
    trio.write_caption(1, "meanwhile", author="human")
    done = editing.apply(trio, edit, changes)
    assert (done.written, done.conflicts) == ([2], [1])
    assert state(trio)[1] == ("meanwhile", "human")


def test_a_bulk_edit_that_fails_leaves_nothing_behind(trio):
    with pytest.raises(Exception, match="FOREIGN KEY"):
        ledger.rewrite(trio, "broken", [Rewrite(1, 1, "x"), Rewrite(999, 0, "no such picture")])
    assert state(trio) == CAPTIONS
    assert ledger.bulks(trio) == []


def test_a_first_caption_can_be_taken_back(trio):
    done = ledger.rewrite(trio, "First words", [Rewrite(3, 0, "new\nwords")])
    assert trio.picture(3).caption == "new words"
    ledger.undo(trio, done.id)
    assert state(trio) == CAPTIONS


WORDS = st.lists(st.sampled_from(["cat", "Cat", "red", "watermark.", "A", "ohwx,", "ß"]), max_size=6).map(" ".join)
EDITS = st.one_of(
    st.builds(editing.replace, st.sampled_from(["cat", "a", "red cat"]), WORDS, match_case=st.booleans()),
    st.builds(lambda r: editing.replace(r"(\w)\w*", r, is_regex=True), st.sampled_from([r"\1", "", r"\1\1"])),
    st.builds(editing.prefix, WORDS.filter(bool)),
    st.builds(editing.suffix, WORDS.filter(bool)),
    st.just(editing.insert_trigger("ohwx")),
    st.just(editing.remove_sentences("watermark")),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(WORDS, min_size=3, max_size=3), edits=st.lists(EDITS, min_size=1, max_size=3))
def test_undoing_edits_in_reverse_restores_everything(trio, texts, edits):
    for id, text in enumerate(texts, start=1):
        trio.write_caption(id, text, author="human")
    before, done = state(trio), []
    for edit in edits:
        previewed = {c.picture: c.after for c in editing.preview(trio.pictures(), edit)}
        done.append(run(trio, edit))
        assert {id: state(trio)[id][0] for id in previewed} == previewed
        assert all(one_line(text) == text for text in previewed.values())
    for result in reversed(done):
        if result.id is not None:
            assert ledger.undo(trio, result.id).conflicts == []
    assert state(trio) == before


def test_one_caption_of_a_bulk_edit_is_restored_unless_it_changed_since(dataset):
    for id, text in ((1, "a red car"), (2, "a red wall"), (3, "a red scarf")):
        dataset.write_caption(id, text, author="captioner")
    edit = editing.replace("red", "blue")
    done = editing.apply(dataset, edit, editing.preview(dataset.pictures(), edit))
    dataset.write_caption(3, "typed since", author="human")
    rows = ledger.replaced(dataset, done.id, 10)
    assert [(row.before, row.after, bool(row.stands)) for row in rows] == [
        ("a red car", "a blue car", True), ("a red wall", "a blue wall", True), ("a red scarf", "a blue scarf", False),
    ]  # fmt: skip
    ledger.restore(dataset, rows[0])
    assert [dataset.picture(id).caption for id in (1, 2, 3)] == ["a red car", "a blue wall", "typed since"]
    assert dataset.picture(1).author == "captioner"
    for row in (rows[0], rows[2]):
        with pytest.raises(CaptionConflict):
            ledger.restore(dataset, row)
    assert [row.stands for row in ledger.replaced(dataset, done.id, 10)] == [0, 1, 0]
    assert len(ledger.replaced(dataset, done.id, 2)) == 2
