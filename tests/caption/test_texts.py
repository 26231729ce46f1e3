import pytest

from lora_lightning.caption.base import Answer
from lora_lightning.caption.texts import tidy


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        (Answer(" A fox.\nIt runs. \n"), "A fox. It runs."),
        (Answer('A sign "Stop!" stands. It is of', "cut"), 'A sign "Stop!" stands.'),
        (Answer("A fox. It runs.", "cut"), "A fox. It runs."),
        (Answer("a fox in a", "cut"), "a fox in a"),
        (Answer("1girl, solo, long ha", "cut"), "1girl, solo, long ha"),
        (Answer("A fox of 3.5 kg sits", "cut"), "A fox of 3.5 kg sits"),
        (Answer("<think>It may be.\nA dog?</think>\n\nA fox."), "A fox."),
        (Answer("so it is</think>A fox."), "A fox."),
        (Answer("<think>Let me see. It is", "cut"), ""),
    ],
)
def test_a_caption_is_one_line_of_whole_sentences_without_thoughts(answer, caption):
    assert tidy(answer) == caption
