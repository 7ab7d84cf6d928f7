# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Exact match and F1 of an answer, as the evaluation script of SQuAD 2.0 defines them, or, for a language, that of MLQA.

The script of SQuAD 1.1 gives the same figures, except for accepted answers that consist of nothing but articles and
punctuation: SQuAD 2.0 does not accept those.

Where a language is given, Unicode's punctuation is dropped beside that of ASCII, and the articles are those of the
language. Languages that are written without spaces have no words to count: there, each character of their script
counts as a word, and a run of others ("iPhone", "1903", digits of the script) as one. Characters are code points.

- Arabic, Chinese, English, German, Hindi, Spanish and Vietnamese are treated as MLQA's script does, which counts
  the Chinese characters from U+4E00 to U+9FA5. An answer that is empty is still judged as SQuAD 2.0 does.
- Burmese, Cantonese, Japanese, Khmer, Lao and Thai, which MLQA does not have, are treated alike, and texts are equal
  that differ in nothing but width (half-width katakana, full-width digits), composition or characters that nobody
  sees, such as zero-width spaces (NFKC without format characters and variation selectors).
"""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class _Language:
    """
    How a text of a language is cut into words.

    :param articles: pattern of what is dropped; None for nothing.
    :param script: characters that count as words, as in a class of a pattern; None where spaces part words.
    :param folded: whether width, composition and invisible characters make no difference.
    """

    articles: str | None = None
    script: str | None = None
    folded: bool = False


_HAN = r"\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = r"\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\U0001aff0-\U0001b16f"
_LANGUAGES = {
    "ar": _Language(articles="ال"),
    "de": _Language(articles=r"\b(ein|eine[nmsr]?|der|die|das|den|dem|des)\b"),
    "en": _Language(articles=_ARTICLES.pattern),
    "es": _Language(articles=r"\b(una?|un[oa]s|el|la|l[ao]s)\b"),
    "hi": _Language(),
    "ja": _Language(script=_HAN + _KANA, folded=True),
    "km": _Language(script=r"\u1780-\u17ff\u19e0-\u19ff", folded=True),
    "lo": _Language(script=r"\u0e80-\u0eff", folded=True),
    "my": _Language(script=r"\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f", folded=True),
    "th": _Language(script=r"\u0e00-\u0e7f", folded=True),
    "vi": _Language(articles=r"\b(của|là|cái|chiếc|những)\b"),
    "yue": _Language(script=_HAN, folded=True),
    "zh": _Language(script=r"\u4e00-\u9fa5"),
}
LANGUAGES = tuple(_LANGUAGES)  # whose words can be counted


def known_language(code: str) -> str:
    """
    Look a language up.

    >>> known_language("zh-CN"), known_language("JA")
    ('zh', 'ja')

    :param code: Its code in ISO 639, in any case, perhaps with a region or script ("zh-CN", "zh_Hant_TW").
    :returns: The code alone, in lower case.
    :raises ValueError: For a language of which it is not known how its words are counted.
    """
    known = re.split("[-_]", code)[0].lower() if isinstance(code, str) else None
    if known in _LANGUAGES:
        return known
    msg = (
        f"language is {code!r}; expected one of {', '.join(LANGUAGES)}, with or without a region, or none at all: "
        "without, words are what stands between spaces, as in SQuAD's script"
    )
    raise ValueError(msg)


def normalise(text: str, language: str | None = None) -> str:
    """
    Lower the case, drop punctuation and articles, and make every run of white space one space.

    >>> normalise("The  Battle of A-Town, and (an) “aftermath”!")
    'battle of atown and “aftermath”'
    >>> normalise("The  Battle of A-Town, and (an) “aftermath”!", "en")
    'battle of atown and aftermath'
    >>> normalise("《红楼梦》, 1791年", "zh")
    '红 楼 梦 1791 年'

    :param text: A text.
    :param language: Code of its language; None for ASCII punctuation and English articles, as SQuAD has it.
    :returns: The normalised text, which may be empty; words, or what counts as one, are parted by spaces.
    :raises ValueError: For a language that is not known.
    """
    if language is None:
        return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())
    rules = _LANGUAGES[known_language(language)]
    if rules.folded:
        text = "".join(one for one in unicodedata.normalize("NFKC", text) if not _unseen(one))
    bare = "".join(one for one in text.lower().translate(_NO_PUNCTUATION) if unicodedata.category(one)[0] != "P")
    if rules.articles:
        bare = re.sub(rules.articles, " ", bare)
    if rules.script:
        bare = re.sub(rf"(?!\d)[{rules.script}]", r" \g<0> ", bare)
    return " ".join(bare.split())


def exact_match(prediction: str, golds: Sequence[str], language: str | None = None) -> float:
    """
    Tell whether a prediction is one of the accepted answers, both normalised.

    >>> exact_match("the Denver Broncos.", ["Denver Broncos", "Broncos"])
    1.0
    >>> exact_match("Denver", ["Denver Broncos"])
    0.0
    >>> exact_match("", [])
    1.0

    :param prediction: The predicted answer; empty for "there is no answer".
    :param golds: The accepted answers; none where the question has no answer.
    :param language: As for `normalise`.
    :returns: 1.0 or 0.0.
    :raises ValueError: For a language that is not known.
    """
    return float(normalise(prediction, language) in _normalised(golds, language))


def f1(prediction: str, golds: Sequence[str], language: str | None = None) -> float:
    """
    Measure the words that a prediction shares with the accepted answer it agrees with best.

    Precision 2/2 and recall 2/3 against the first answer below, 2/2 and 2/4 against the second:

    >>> round(f1("Denver Broncos", ["Denver Broncos team", "a team from Denver: Broncos"]), 3)
    0.8
    >>> f1("the answer", []), f1("", []), f1("", ["an answer"])
    (0.0, 1.0, 0.0)

    Where words are not parted by spaces, characters are shared, here two of the three that were expected:

    >>> f1("東京", ["東京都"]), f1("東京", ["東京都"], language="ja")
    (0.0, 0.8)

    :param prediction: The predicted answer; empty for "there is no answer".
    :param golds: The accepted answers; none where the question has no answer.
    :param language: As for `normalise`.
    :returns: The best F1 over the accepted answers, from 0.0 to 1.0.
    :raises ValueError: For a language that is not known.
    """
    words = normalise(prediction, language).split()
    return max(_word_f1(words, gold.split()) for gold in _normalised(golds, language))


def best_threshold(scores: Sequence[float], values: Sequence[float], answerable: Sequence[bool]) -> tuple[float, float]:
    """
    Find the score below which it is best to say that there is no answer, as the script of SQuAD 2.0 does.

    The second question has no answer; saying so costs the third, whose answer scores lower still:

    >>> best_threshold([0.9, 0.4, 0.3], [1.0, 0.0, 0.5], [True, False, True])
    (0.6666666666666666, 0.9)

    :param scores: How sure the reader is of its answer to each question; -inf where it gave none.
    :param values: Exact match or F1 of that answer.
    :param answerable: Whether the question has an answer.
    :returns: The mean value with the best threshold, and the lowest score at which an answer is given.
    """
    total = best = float(sum(not one for one in answerable))
    threshold = math.inf
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if answerable[i]:
            total += values[i]
        elif scores[i] > -math.inf:
            total -= 1
        if total > best:
            best, threshold = total, scores[i]
    return best / max(len(scores), 1), threshold


def _unseen(character: str) -> bool:
    """Whether nobody sees a character, white space apart: a format character or a variation selector."""
    return unicodedata.category(character) == "Cf" or "VARIATION SELECTOR" in unicodedata.name(character, "")


def _normalised(golds: Sequence[str], language: str | None) -> list[str]:
    return [gold for gold in (normalise(one, language) for one in golds) if gold] or [""]


def _word_f1(words: list[str], gold: list[str]) -> float:
    if not words or not gold:
        return float(words == gold)
    shared = (Counter(words) & Counter(gold)).total()
    return 2 * shared / (len(words) + len(gold))
