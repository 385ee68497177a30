"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa over a hundred languages."""

from clozeworks.model.families.base import classes
from clozeworks.model.families.roberta import Roberta


class XlmRoberta(Roberta):
    """XLM-R: as RoBERTa, with a unigram tokenizer of 250,000 pieces."""

    model_type = "xlm-roberta"
    tokenizer = "unigram"
    architectures = classes("XLMRoberta")
