# SPDX-FileCopyrightText: 2026 btr-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Training in three stages, teacher, decomposed, binarised; and an asker, which writes questions to train on."""
