# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btr_haystack.metrics import LANGUAGES, best_threshold, exact_match, f1, known_language, normalise

WORDS = st.lists(st.sampled_from(["the", "an", "red", "Red", "blue", "sky", "sky.", "(sea)", "—", "42"]), max_size=6)
TEXTS = st.one_of(st.text(), WORDS.map(" ".join))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("", ""),
        (" \t\n ", ""),
        ("The", ""),
        ("a an the", ""),
        ("the theatre", "theatre"),
        ("A man, a plan", "man plan"),
        ("Vitamin A", "vitamin"),
        ("U.S.A.", "usa"),
        ("U.S. a.", "us"),
        ("$1,000.50", "100050"),
        ("the-end", "theend"),  # punctuation goes first, so this article is none
        ("DON'T", "dont"),
        ("“the end” — été…", "“ end” — été…"),  # only ASCII punctuation is dropped
        ("ÉTÉ a\u00a0b", "été b"),
        ("İ", "i\u0307"),
        ("!?", ""),
    ],
)
def test_normalise(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "score"),
    [
        ("Santa Clara, California", ["Santa Clara, California", "Levi's Stadium"], 1, 1),
        ("in santa clara california", ["Santa Clara, California"], 0, 6 / 7),
        ("Levi's Stadium in Santa Clara", ["Santa Clara", "Levi's Stadium", "Levi's Stadium in Santa Clara."], 1, 1),
        ("gold gold", ["gold"], 0, 2 / 3),  # words count as often as they occur
        ("gold", ["gold gold"], 0, 2 / 3),
        ("silver", ["gold"], 0, 0),
        ("", [], 1, 1),
        ("the", [], 1, 1),
        ("gold", [], 0, 0),
        ("", ["gold"], 0, 0),
        ("", ["the", "gold"], 0, 0),  # an answer that is empty once normalised is not accepted ...
        ("a", ["a", "."], 1, 1),  # ... unless all are
    ],
)
def test_scores(prediction, golds, exact, score):
    assert exact_match(prediction, golds) == exact
    assert f1(prediction, golds) == pytest.approx(score)


@given(TEXTS)
def test_normalising_leaves_no_case_ascii_punctuation_or_surplus_space(text):
    normal = normalise(text)
    assert normal == normal.lower()
    assert not set(normal) & set(string.punctuation)
    assert normal.split() == normal.split(" ") or normal == ""
    assert not {"a", "an", "the"} & set(normal.split())


@given(TEXTS, st.lists(TEXTS))
def test_scores_are_between_nothing_and_all(prediction, golds):
    score = f1(prediction, golds)
    assert 0 <= score <= 1
    assert exact_match(prediction, golds) <= score
    assert score == f1(prediction, golds[::-1])


@given(TEXTS, st.lists(TEXTS, min_size=1))
def test_an_accepted_answer_scores_all_and_case_does_not_matter(text, others):
    if normalise(text):
        assert exact_match(text, [*others, text]) == f1(text, [*others, text]) == 1
    assert f1(f"the {text.lower()}!", [text]) == f1(text, [text.lower()])


@given(WORDS.map(" ".join), WORDS.map(" ".join))
def test_f1_is_symmetric_and_equals_the_formula_of_the_script(prediction, gold):
    assert f1(prediction, [gold]) == f1(gold, [prediction])
    words, gold_words = normalise(prediction).split(), normalise(gold).split()
    shared = sum(min(words.count(word), gold_words.count(word)) for word in set(words))
    if shared:
        precision, recall = shared / len(words), shared / len(gold_words)
        assert f1(prediction, [gold]) == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert f1(prediction, [gold]) == float(words == gold_words)


@given(TEXTS, st.lists(TEXTS))
def test_more_accepted_answers_never_lower_a_score(prediction, golds):
    accepted = [gold for gold in golds if normalise(gold)]
    if accepted:
        assert f1(prediction, accepted) >= f1(prediction, accepted[:1])


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from([0.0, 0.25, 1.0]), st.booleans()),
        max_size=12,
        unique_by=lambda one: one[0],
    )
)
def test_best_threshold_is_the_best_of_all(cases):
    scores = [float(score) for score, _, _ in cases]
    values = [value if answerable else 0.0 for _, value, answerable in cases]
    answerable = [one for _, _, one in cases]

    def mean(threshold):
        given = [score >= threshold for score in scores]
        rows = zip(given, values, answerable, strict=True)
        return sum(value * shown if there else 1 - shown for shown, value, there in rows) / max(len(cases), 1)

    best, threshold = best_threshold(scores, values, answerable)
    assert best == pytest.approx(max(map(mean, [math.inf, *scores])))
    assert mean(threshold) == pytest.approx(best)


# in a language

WITHOUT_SPACES = {
    "ja": "東京都", "km": "ភ្នំពេញ", "lo": "ວຽງຈັນ", "my": "ရန်ကုန်", "th": "กรุงเทพ", "yue": "香港嘅", "zh": "今天天气",
}  # fmt: skip
ODD = st.lists(
    st.sampled_from([*"今天ーカｶﾞกำျ។་ຽ", "iPhone", "\uff119", " ", "\u3000", "、", "「", "…", "der", "ال"]), max_size=8
)


@pytest.mark.parametrize(
    ("language", "text", "normal"),
    [
        ("en", "The “End” — of a U.S.A.", "end of usa"),
        ("de", "Der Sohn eines Müllers; die Mühle", "sohn müllers mühle"),
        ("es", "¿Las dos, o lo otro?", "dos o lo otro"),  # "lo" is none of MLQA's articles
        ("vi", "những con sông của Việt Nam", "con sông việt nam"),
        ("ar", "الكتاب، في البيت؟", "كتاب في بيت"),
        ("hi", "दिल्ली।", "दिल्ली"),
        ("zh", "《红楼梦》(The Dream) 1791年。", "红 楼 梦 the dream 1791 年"),
        ("zh", "\uff2e\uff28 天\u3000气", "\uff4e\uff48 天 气"),
        ("zh", "トヨタ公司", "トヨタ 公 司"),  # the script counts Han characters alone
        ("ja", "「ｶﾞﾝﾀﾞﾑ」は１９７９年", "ガ ン ダ ム は 1979 年"),
        ("ja", "か\u3099っこう・iPhone 12", "が っ こ う iphone 12"),
        ("ja", "佐々木〆切スーパー", "佐 々 木 〆 切 ス ー パ ー"),
        ("ja", "辻\U000e0100さん", "辻 さ ん"),
        ("yue", "𠮷𠮷", "𠮷 𠮷"),
        ("th", "ปี ๒๕๖๓ (2563)", "ป ี ๒๕๖๓ 2563"),
        ("km", "ភ្នំ\u200bពេញ។", "ភ ្ ន ំ ព េ ញ"),
        ("my", "မြို့။", "မ ြ ိ ု ့"),
        ("lo", "ລາວ 25", "ລ າ ວ 25"),
    ],
)
def test_normalise_in_a_language(language, text, normal):
    assert normalise(text, language) == normal


@pytest.mark.parametrize("language", WITHOUT_SPACES)
def test_a_near_miss_without_spaces(language):
    gold = WITHOUT_SPACES[language]
    assert f1(gold[:-1], [gold]) == 0  # one word is not the other
    assert f1(gold[:-1], ["", gold], language) == pytest.approx(2 * (len(gold) - 1) / (2 * len(gold) - 1))
    assert exact_match(gold[:-1], [gold], language) == 0
    assert exact_match(f" {gold}。", [gold], language) == f1(f"「{gold}」", [gold], language) == 1
    assert f1("x", [gold], language) == f1("", [gold], language) == 0
    assert f1("", [], language) == exact_match("。", [], language) == 1
    assert f1(f"abc{gold}", [f"abd{gold}"], language) == pytest.approx(len(gold) / (len(gold) + 1))


@given(st.sampled_from(LANGUAGES), st.one_of(st.text(), ODD.map("".join)), st.one_of(st.text(), ODD.map("".join)))
def test_scores_in_a_language(language, prediction, gold):
    score = f1(prediction, [gold], language)
    assert 0 <= exact_match(prediction, [gold], language) <= score <= 1
    assert score == pytest.approx(f1(gold, [prediction], language))
    assert exact_match(gold, [gold], language) == f1(gold, [gold], language) == 1
    assert normalise(gold, language).split() == normalise(gold, language).split(" ") or not normalise(gold, language)


@pytest.mark.parametrize("code", ["zh", "ZH", "zh-CN", "zh_TW", "zh-Hant-HK"])
def test_codes_of_a_language(code):
    assert known_language(code) == "zh"
    assert f1("天气很好", ["今天天气很好"], language=code) == pytest.approx(0.8)


@pytest.mark.parametrize("code", ["", "xx", "chinese", " ", "-zh", "中文", 5, b"zh"])
def test_unknown_languages(code):
    for refuse in (known_language, lambda code: f1("a", ["a"], code), lambda code: normalise("a", code)):
        with pytest.raises(ValueError, match=r"language is .*; expected one of ar, de, en, .*, zh, with or without"):
            refuse(code)
