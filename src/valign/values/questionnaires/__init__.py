"""Questionnaires as data: the project's portraits, and readers of published instruments."""

from valign.values.questionnaires.load import available_questionnaires, load_questionnaire
from valign.values.questionnaires.types import Item, Questionnaire, QuestionnaireError

__all__ = [
    "Item",
    "Questionnaire",
    "QuestionnaireError",
    "available_questionnaires",
    "load_questionnaire",
]
