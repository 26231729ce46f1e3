import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from lora_lightning.datasets.names import UniqueNames, clean, fold, natural_order, one_line, portable_stems, stem
from lora_lightning.workspace import WINDOWS_DEVICES

any_text = st.text(st.characters())  # lone surrogates and control characters too


@given(any_text)
def test_clean_text_can_be_stored_and_shown(text):
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert not any(unicodedata.category(c) == "Cc" for c in cleaned)
    assert clean(cleaned) == cleaned


@given(any_text)
def test_a_caption_is_one_line_and_stays_as_it_is_when_written_again(text):
    line = one_line(text)
    line.encode("utf-8")
    assert len(line.splitlines()) <= 1
    assert line == line.strip()
    assert one_line(line) == line


def test_one_line_keeps_words_and_inner_spaces():
    assert one_line("  a dog\r\n\r\n on a  beach\u2028at\tnoon ") == "a dog on a  beach at noon"


@given(st.text())
def test_fold_sees_case_and_composition_alike(text):
    assert fold(text) == fold(unicodedata.normalize("NFD", text))
    assert fold(fold(text)) == fold(text)


def test_stem_takes_off_a_picture_suffix_only():
    assert stem("a/beach.JPG") == "a/beach"
    assert stem("v1.5") == "v1.5"
    assert stem("v1.5.png") == "v1.5"
    assert stem(".png") == ".png"


def test_natural_order_counts():
    names = ["10.png", "9.png", "0010b.png", "a2.png", "A1.png", "x" + "9" * 5000]
    assert sorted(names, key=natural_order)[:5] == ["9.png", "10.png", "0010b.png", "A1.png", "a2.png"]


@given(st.lists(st.sampled_from(["a.png", "A.PNG", "a (2).png", "b.jpg", "é.png", "e\u0301.png", "a"]), max_size=12))
def test_unique_names_never_collide(names):
    unique = UniqueNames(["a.png"])
    given_out = [unique.take(name) for name in names]
    folded = [fold(name) for name in given_out]
    assert len(set(folded)) == len(folded)
    assert "a.png" not in folded


def test_many_equal_names_take_no_quadratic_time():
    unique = UniqueNames()
    assert [unique.take("image.png") for _ in range(20_000)][-1] == "image (20000).png"


@given(st.lists(any_text, max_size=8))
def test_portable_stems_suit_every_system(names):
    stems = portable_stems(names)
    assert len(stems) == len(names)
    assert len({s.lower() for s in stems}) == len(stems)
    for made in stems:
        assert made.isascii()
        assert made
        assert "/" not in made
        assert "." not in made
        assert made.lower() not in WINDOWS_DEVICES


def test_portable_stems_by_example():
    names = ["Beach Day.JPG", "beach_day.png", "../../etc/passwd", "CON.png", "Ünïcode.webp", "日本.png"]
    assert portable_stems(names) == ["Beach_Day", "beach_day-2", "etc_passwd", "CON_", "Unicode", "picture"]
