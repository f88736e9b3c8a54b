"""The notebook view is static, safe, and says what the record says."""

from html.parser import HTMLParser

import pytest

from factories_audits import HOSTILE, make_audit, make_hostile_audit


class Tags(HTMLParser):
    """Tags that were opened, the attributes they had, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.opened, self.attributes, self.words, self.open_now = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.opened.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag != "wbr":
            self.open_now.append(tag)

    def handle_endtag(self, tag):
        assert self.open_now.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize(
    "audit",
    [
        make_audit(blocks=2),
        make_audit(blocks=2, broken=True),
        make_audit(with_base=False),
    ],
    ids=["healthy", "broken", "no base"],
)
def test_the_fragment_is_balanced_static_and_small(audit):
    text = audit._repr_html_()
    page = Tags(text)
    assert page.open_now == []
    assert not {"script", "style", "link", "img", "iframe"} & set(page.opened)
    assert len(text) < 20_000


def test_it_says_the_verdict_in_words_and_the_remedy():
    said = "".join(Tags(make_audit(blocks=2, broken=True)._repr_html_()).words)
    assert "Broken" in said
    assert "1 error and 1 warning" in said
    assert "Train again from the last checkpoint that is finite." in said


def test_hostile_names_stay_text():
    page = Tags(make_hostile_audit()._repr_html_())
    assert HOSTILE in "".join(page.words)
    assert not {"script", "img"} & set(page.opened)
    assert "onerror" not in page.attributes


def test_colours_come_from_the_surrounding_page():
    text = make_audit(blocks=1)._repr_html_()
    assert "background" not in text
    assert ";color:" not in text
