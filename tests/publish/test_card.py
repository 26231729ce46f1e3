import ast
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lora_lightning import __version__
from lora_lightning.publish.card import Card, Sample, render
from tests.publish.hub_server import FRONT_MATTER

HOSTILE = (
    "--- \n---\nlicense: mit",
    "a: {b: [",
    "<script>alert(1)</script> <img src=x onerror=alert(1)>",
    "![beacon](http://evil.example/x.png) [link](javascript:alert(1)) http://evil.example www.evil.example",
    "``` \n```python\nimport os",
    '"; import os; os.system("true") #',
    "| a | b |\n|---|---|",
    "**bold** _it_ ~~no~~ # head $x$ :red[x] &lt; a@b.example",
    "x\x00\x1b[31m\u2028\u202ey",
)


def card(prompt="a fox, MYSTYLE", trigger="MYSTYLE", base="black-forest-labs/FLUX.1-dev"):
    samples = [Sample("0000600-0.png", prompt)] if prompt else []
    return Card("my-style", trigger, base, 20, 3.5, samples, {"Steps": "600", "Optimizer": prompt or "adamw"})


def front_matter(text):
    return yaml.safe_load(FRONT_MATTER.match(text)[2])


def body(text):
    return text[FRONT_MATTER.match(text).end() :]


def test_the_front_matter_says_what_hosts_read(make_recipe, finish):
    made = make_recipe(sample={"prompts": ["a fox, MYSTYLE", "a city, MYSTYLE"]})
    text = (finish(made) / "README.md").read_text()
    assert front_matter(text) == {
        "tags": ["text-to-image", "diffusers", "lora", "flux", "template:sd-lora", "lora-lightning"],
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "base_model": "black-forest-labs/FLUX.1-dev",
        "base_model_relation": "adapter",
        "instance_prompt": "MYSTYLE",
        "license": "other",
        "license_name": "flux-1-dev-non-commercial-license",
        "license_link": "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
        "widget": [
            {"text": "a fox, MYSTYLE", "output": {"url": "samples/0000600-0.png"}},
            {"text": "a city, MYSTYLE", "output": {"url": "samples/0000600-1.png"}},
        ],
    }


def test_the_body_says_how_it_was_trained(make_recipe, finish):
    text = (finish(make_recipe(lora={"rank": 8, "alpha": 4}, train={"steps": 600, "accumulate": 2})) / "README.md").read_text()  # fmt: skip # noqa: E501
    rows = dict(re.findall(r"^\| ([^|]+?) \| (.+?) \|$", text, re.MULTILINE))
    assert rows["Pictures"] == "14"
    assert rows["Steps"] == "600"
    assert rows["Rank, alpha"] == "8, 4"
    assert rows["Batch size"] == "1 x 2"
    assert rows["Final loss"] == "0.4123"
    assert f"LoRA Lightning {__version__}" in text
    assert ".png" not in text  # no samples, and never a name from the dataset


def test_the_base_gives_the_licence():
    schnell = front_matter(render(card(base="black-forest-labs/FLUX.1-schnell")))
    assert schnell["license"] == "apache-2.0"
    assert "license_name" not in schnell
    other = front_matter(render(card(base="tiny-flux")))
    assert not {"license", "base_model", "base_model_relation"} & set(other)


def test_without_trigger_and_samples_nothing_is_invented():
    text = render(card(prompt="", trigger=""))
    assert not {"instance_prompt", "widget"} & set(front_matter(text))
    assert "Trigger" not in text
    assert "<Gallery" not in text


def check_harmless(text, foreign):
    front = front_matter(render(card()))
    hostile = front_matter(text)
    words = " ".join("".join(c if c.isprintable() else " " for c in foreign).split())
    assert set(hostile) - {"instance_prompt", "widget"} == set(front) - {"instance_prompt", "widget"}
    assert hostile["license"] == "other"
    if words:
        assert hostile["widget"][0]["text"] == words
        assert hostile["instance_prompt"] == words
    shape = [token.type for token in MarkdownIt("gfm-like", {"linkify": False}).parse(body(text))]
    plain = [token.type for token in MarkdownIt("gfm-like", {"linkify": False}).parse(body(render(card(" x", "x"))))]
    if words:
        assert shape == plain
    html = MarkdownIt("gfm-like", {"linkify": False}).render(body(text))
    outside_code = re.sub(r"<pre>.*?</pre>|<code>.*?</code>", "", html, flags=re.DOTALL)
    tags = set(re.findall(r"<([a-zA-Z]+[0-9]?)", outside_code))
    assert tags <= {"h1", "h2", "p", "a", "strong", "table", "thead", "tbody", "tr", "th", "td", "Gallery"}
    links = set(re.findall(r'(?:href|src)="([^"]*)"', outside_code))
    assert all(link == "recipe.yaml" or link.startswith("https://huggingface.co/black-forest-labs/") for link in links)
    code = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)[1]
    assert [type(node).__name__ for node in ast.parse(code).body] == ["Import", "ImportFrom", "Assign", "Expr", "Assign", "Assign"]  # fmt: skip # noqa: E501


@pytest.mark.parametrize("foreign", HOSTILE)
def test_hostile_words_stay_words(foreign):
    check_harmless(render(card(foreign, foreign)), foreign)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.one_of(st.sampled_from("\n-`|#*_[]<>()!\\:&$\"'{}/~ ab"), st.characters(exclude_categories=["Cs"]))))  # fmt: skip # noqa: E501
def test_any_words_stay_words(foreign):
    check_harmless(render(card(foreign, foreign)), foreign)


def test_bare_addresses_do_not_become_links():
    text = body(render(card("see http://evil.example or www.evil.example or me@evil.example")))
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r"http:|www\.e|me@", prose)
