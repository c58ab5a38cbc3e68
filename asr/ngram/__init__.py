"""Sentences in, a word n-gram language model out; a word after others in, its log-probability out."""

from asr.ngram.build import NgramOptions, build
from asr.ngram.files import Ngrams, read, save
from asr.ngram.model import NgramModel, State

__all__ = ["NgramModel", "NgramOptions", "Ngrams", "State", "build", "read", "save"]
