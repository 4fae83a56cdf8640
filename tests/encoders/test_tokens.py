"""Our tokenizer against open_clip's: the same ids for any text."""

from __future__ import annotations

import contextlib
import gzip
import random
from pathlib import Path

import ftfy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.encoders import tokens
from search.encoders.blueprints import open_clip
from search.encoders.tokens import END, START, VOCABULARY, ClipTokenizer

THEIRS = open_clip.SimpleTokenizer()
OURS = ClipTokenizer(77)

BY_HAND = [
    "",
    " ",
    "\n\t \r\n",
    "\u00a0\u2003\u3000",
    "a photo of a dog playing in the snow",
    "A PHOTO of a DoG",
    "don't, I'll, we've, they're, I'm, he'd, it's; DON'T",
    "'s 't 'x '' 'S ''ll",
    "'\u017f 's",  # the long s is an s to a pattern that ignores case
    "rock'n'roll 24/7 at 3.14159, 2nd of 1,000,000",
    "0123456789 ٠١٢٣ ½ ² Ⅷ ㊿",
    "&amp; &lt;b&gt; &eacute; &amp;amp;eacute; &#233; &#xE9; &nosuch; & &#28;x &#127; &nbsp;.",
    "<b>&eacute;</b>",
    "<start_of_text>a cat<end_of_text> and more <START_OF_TEXT> <start_of_text",
    "<\u017ftart_of_text>",
    "Ã©tÃ© â€œquotedâ€\x9d cafÃ© naÃ¯ve schÃ¶n",
    "“curly” ‘quotes’ … — – ‐ ﬁ ﬂ Ｆｕｌｌ　ｗｉｄｔｈ",
    "Émile’s Straße ÀÉÎÕÜ İstanbul ǅ ŉ",
    "e\u0301 o\u0308 n\u0303 \u1e9b\u0323",
    "日本語の写真 中文照片 한국어 사진 ภาษาไทย हिन्दी עברית العربية Ελληνικά Русский",
    "dog犬狗cat猫1двa",
    "🎉🐕‍🦺👨‍👩‍👧‍👦🏳️‍🌈 ☃️ 1️⃣",
    "\x00\x01\x02 null \x07 \x1b[31mred\x1b[0m \x1c\x1d\x1e\x1f \x7f \x80\x85\x9f",
    "\u200b\u200d\ufeff\u2028\u2029\u202e\ufffd\uffff\U0010ffff",
    "lone surrogates \ud800 and \udc80",
    "_underscore_ snake_case kebab-case C++ C# a@b.example https://example.org/?q=1&r=2",
    "!!!???...,,,;;;:::---___***(((",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "x " * 500,
    "word" * 300,
    "🎉" * 100,
    "a" * 5000,
]

PIECES = [
    *("dog", "Snow", "the", "PHOTO", "mountain", "internationalisation", "qzx", "straße", "ÉTÉ", "写真", "собака"),
    *("'s", "'T", "'re", "'LL", "’s", "&amp;", "&eacute;", "&lt;", "&#39;", "<", ">", "<end_of_text>", "â€™"),
    *(" ", "  ", "\n", "\t", "\u00a0", "\x1b[0m", "\x00", "\x1f", "\x7f", "0", "42", "½", "🎉", "é", "e\u0301"),
    *("!", "...", "-", "_", "/", '"', "#", "😀👍🏽"),
]


@pytest.fixture(scope="module")
def assorted() -> list[str]:
    """Three thousand texts: pieces that interact, put together at random, and characters of all planes."""
    draw = random.Random(7)
    mixed = ["".join(draw.choices(PIECES, k=draw.randint(1, 12))) for _ in range(2000)]
    ascii_ = ["".join(chr(draw.randrange(128)) for _ in range(draw.randint(1, 40))) for _ in range(500)]
    ranges = [(0x80, 0x250), (0x370, 0x1000), (0x2000, 0x3100), (0x4E00, 0xA000), (0xE000, 0x1FB00)]
    wide = ["".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(15)) for _ in range(500)]
    return mixed + ascii_ + wide


@pytest.mark.parametrize("text", BY_HAND, ids=range(len(BY_HAND)))
def test_ids_are_open_clips(text):
    assert OURS.encode(text) == THEIRS.encode(text)


def test_ids_are_open_clips_over_assorted_texts(assorted):
    for text in assorted:
        assert OURS.encode(text) == THEIRS.encode(text), repr(text)


@given(st.text(max_size=60))
@settings(max_examples=1000, deadline=None)
def test_ids_are_open_clips_for_any_text(text):
    assert OURS.encode(text) == THEIRS.encode(text)


@given(st.text(st.characters(max_codepoint=0x17F), max_size=40))
@settings(max_examples=1000, deadline=None)
def test_ids_are_open_clips_for_latin_text(text):
    assert OURS.encode(text) == THEIRS.encode(text)


@given(st.lists(st.sampled_from(PIECES), max_size=15).map("".join))
@settings(max_examples=1000, deadline=None)
def test_ids_are_open_clips_for_pieces_that_interact(text):
    assert OURS.encode(text) == THEIRS.encode(text)


@pytest.mark.parametrize("context_length", [2, 3, 16, 77, 248])
def test_rows_are_padded_and_cut_as_open_clips(assorted, context_length):
    cutting = ClipTokenizer(context_length)
    texts = BY_HAND + assorted[::10]
    rows = THEIRS(texts, context_length=context_length).tolist()
    for text, row in zip(texts, rows, strict=True):
        tokens = cutting(text)
        assert tokens + [0] * (context_length - len(tokens)) == row, repr(text)


def test_a_text_that_fills_the_context_is_not_cut():
    assert OURS("dog " * 75) == [START, *[1929] * 75, END]
    assert OURS("dog " * 76) == [START, *[1929] * 75, END]
    assert OURS.count("dog " * 76) == 78


def test_count_has_start_and_end_and_is_not_cut():
    assert [OURS.count(text) for text in ("", "dog", "dog " * 500)] == [2, 3, 502]


def test_every_token_of_the_vocabulary_has_open_clips_id():
    ids = tokens._symbols() | {"<start_of_text>": START, "<end_of_text>": END}
    ids |= {line.replace(" ", ""): token for token, line in enumerate(tokens._merge_lines(), 512)}
    assert ids == THEIRS.encoder
    assert len(ids) == VOCABULARY


def test_a_pair_in_the_list_of_merges_is_two_symbols():
    with gzip.open(tokens._merges_file(), "rt", encoding="utf-8") as file:
        pairs = file.read().split("\n")[1:48895]
    assert tokens._merge_lines() == pairs
    assert all(pair.split() == pair.split(" ") and len(pair.split()) == 2 for pair in pairs)


def test_the_table_holds_every_merge_and_no_other():
    merges = tokens.load_merges(None)
    ranks = {tuple(THEIRS.encoder[symbol] for symbol in pair): 512 + n for pair, n in THEIRS.bpe_ranks.items()}
    assert {pair: merges.find(*pair) for pair in ranks} == ranks
    draw = random.Random(1)
    others = {(draw.randrange(VOCABULARY), draw.randrange(VOCABULARY)) for _ in range(5000)} - ranks.keys()
    assert {merges.find(*pair) for pair in others} == {VOCABULARY}
    assert {merges.find(0, 0), merges.find(VOCABULARY - 1, VOCABULARY - 1)} <= {VOCABULARY, *ranks.values()}


TEXT = "a photo of a dog playing in the snow"


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the list of merges fails."""

    def fail() -> list[str]:
        raise AssertionError("the list was read")

    tokens._table.cache_clear()
    tokens._made_merges.cache_clear()
    monkeypatch.setattr(tokens, "_merge_lines", fail)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder that has the table."""
    ClipTokenizer(77, folder=tmp_path / "kept").encode(TEXT)
    return tmp_path / "kept"


def test_a_kept_table_gives_the_same_ids_without_reading_the_list(kept, assorted, unread):
    mapped = ClipTokenizer(77, folder=kept)
    for text in BY_HAND + assorted[::3]:
        assert mapped.encode(text) == THEIRS.encode(text), repr(text)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-1], lambda data: b"", lambda data: data[:9000] + b"?" + data[9001:]],
    ids=range(3),
)
def test_a_damaged_table_is_made_anew(kept, damage):
    [table] = kept.iterdir()
    whole = table.read_bytes()
    table.write_bytes(damage(whole))
    assert ClipTokenizer(77, folder=kept).encode(TEXT) == THEIRS.encode(TEXT)
    assert table.read_bytes() == whole
    assert list(kept.iterdir()) == [table]


def test_where_no_table_can_be_kept_the_ids_are_the_same(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert ClipTokenizer(77, folder=folder).encode(TEXT) == THEIRS.encode(TEXT)


def test_a_list_of_merges_that_is_another_leaves_no_table(tmp_path, monkeypatch):
    lines = tokens._merge_lines()
    tokens._table.cache_clear()
    tokens._made_merges.cache_clear()
    monkeypatch.setattr(tokens, "_merge_lines", lambda: [lines[1], lines[0], *lines[2:]])
    ClipTokenizer(77, folder=tmp_path).encode(TEXT)
    assert not list(tmp_path.iterdir())
    tokens._table.cache_clear()
    tokens._made_merges.cache_clear()


@pytest.mark.parametrize("errors", ["surrogatepass", "replace", "ignore"])
def test_ids_are_open_clips_for_bytes_taken_as_text(errors):
    draw = random.Random(11)
    for _ in range(400):
        data = draw.randbytes(draw.randrange(40))
        codec = "utf-16-le" if errors == "surrogatepass" else draw.choice(["utf-8", "utf-16-le", "shift_jis"])
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(codec, errors)
            assert ours_or_error(text) == theirs_or_error(text), repr(text)


def ours_or_error(text: str) -> list[int] | str:
    try:
        return OURS.encode(text)
    except UnicodeEncodeError:
        return "a lone surrogate"


def theirs_or_error(text: str) -> list[int] | str:
    try:
        return THEIRS.encode(text)
    except UnicodeEncodeError:
        return "a lone surrogate"


def test_no_text_that_skips_ftfy_would_be_changed_by_it():
    """Every such character beside every other, in the two orders and with a third behind them.

    Line ends are the exception: ftfy turns \\r into \\n, and the collapse of whitespace makes both a space.
    """
    clean = [chr(code) for code in range(128) if tokens._CLEAN.fullmatch(chr(code))]
    assert len(clean) == 3 + 94  # tab and line ends; all that prints but the ampersand
    lines = ["".join(a + b + c for b in clean) for a in clean for c in clean if "\r" not in a + c]
    joined = [line.replace("\r", "") for line in lines]
    assert [ftfy.fix_text(line) for line in joined] == joined
    for line in ("\r", "\r\n", "a\rb\r\nc\n\rd"):
        assert ftfy.fix_text(line).split() == line.split()


@given(st.from_regex(tokens._CLEAN, fullmatch=True))
@settings(max_examples=500, deadline=None)
def test_ftfy_changes_nothing_but_whitespace_in_clean_text(text):
    assert ftfy.fix_text(text).split() == text.split()
