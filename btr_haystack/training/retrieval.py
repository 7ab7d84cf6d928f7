# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Which paragraphs a retriever would put beside a paragraph: the wrong passages that training needs."""

from collections.abc import Sequence

import numpy as np

from btr_haystack.squad import Paragraph


def rivals(paragraphs: Sequence[Paragraph], most: int = 40) -> list[list[int]]:
    """
    The paragraphs that BM25 finds for a paragraph's questions, all of them taken as one query.

    :param paragraphs: of `read_paragraphs`.
    :param most: rivals of a paragraph.
    :returns: for each paragraph the numbers of others, best first.
    :raises ImportError: without the package `bm25s`.
    """
    try:
        import bm25s  # type: ignore[import-untyped]
    except ImportError as error:
        msg = "training finds wrong passages with bm25s: pip install 'btr-haystack[train]'"
        raise ImportError(msg) from error
    texts = [paragraph.text for paragraph in paragraphs]
    queries = [" ".join(question.text for question in paragraph.questions) for paragraph in paragraphs]
    if len(texts) < 2 or not any(text.strip() for text in texts):  # noqa: PLR2004
        return [[] for _ in texts]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    asked = bm25s.tokenize(queries, return_ids=False, show_progress=False)
    found, _ = index.retrieve(asked, k=min(most + 1, len(texts)), show_progress=False)
    return [[int(other) for other in row if other != number] for number, row in enumerate(np.asarray(found))]
