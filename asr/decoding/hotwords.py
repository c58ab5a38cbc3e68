"""Hot words: a list of words or phrases in, a bonus for each character that a hypothesis spells of one of them out.

The phrases are an automaton over characters (Aho & Corasick 1975), moved for all rows at once by two tables. What a
beginning was given is taken back where the hypothesis leaves the phrase before its end. Of two phrases that are spelled
at once, one that begins or ends the other gives nothing of its own; one in its middle, or across its end, counts too.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asr.errors import ConfigError
from asr.model import Memory
from asr.text import normalise
from asr.tokenizer import Tokenizer


@dataclass(frozen=True)
class HotWords:
    """The automaton of a list of phrases, each of which begins and ends where a word does.

    Node 0 is inside a word that is in no phrase, node 1 between words. A step from node n by token v leads to
    `following[n, v]` and matches `gains[n, v]` characters more, or fewer where a beginning was for nothing.
    """

    phrases: tuple[str, ...]
    alphabet: str
    following: Tensor  # (nodes, V) integer
    gains: Tensor  # (nodes, V) characters

    @classmethod
    def build(cls, phrases: Sequence[str], tokenizer: Tokenizer) -> "HotWords":
        """Build the automaton. Raises ConfigError naming a phrase with a character outside the alphabet."""
        for phrase in phrases:
            _check(phrase, tokenizer, f"hot word {phrase!r}")
        following, gains = _automaton([phrase.split() for phrase in phrases], tokenizer)
        return cls(tuple(phrases), tokenizer.alphabet, following, gains)

    @classmethod
    def load(cls, path: str | Path, tokenizer: Tokenizer) -> "HotWords":
        """Read a UTF-8 text file with one word or phrase a line, written as transcripts are; empty lines are skipped.

        Raises ConfigError naming the file, and the line with a character outside the alphabet.
        """
        try:
            lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise ConfigError(f"{path}: cannot read hot words: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: hot words must be UTF-8 text") from error
        phrases = []
        for number, line in enumerate(lines, 1):
            phrase = normalise(line)
            if line.strip() and not phrase:
                raise ConfigError(f"{path}, line {number}: {line.strip()!r} has no words")
            _check(phrase, tokenizer, f"{path}, line {number}")
            phrases += [phrase] if phrase else []
        if not phrases:
            raise ConfigError(f"{path}: holds no hot words; write one a line")
        return cls.build(phrases, tokenizer)

    def start(self, memory: Memory, rows: int) -> "HotWordState":
        """See Scorer."""
        device = memory.mask.device
        nodes = torch.ones(len(memory.lengths) * rows, dtype=torch.long, device=device)
        return HotWordState(self.following.to(device), self.gains.to(device), nodes)


@dataclass(frozen=True)
class HotWordState:
    """The node (N,) of each hypothesis."""

    following: Tensor  # as in HotWords
    gains: Tensor
    nodes: Tensor

    @property
    def scores(self) -> Tensor:
        """Characters (N, V) of hot words that each token matches more, net of those that it gives up."""
        return self.gains[self.nodes]

    def advance(self, parents: Tensor, tokens: Tensor) -> "HotWordState":
        """See ScorerState."""
        nodes = self.following[self.nodes[parents], tokens]
        return HotWordState(self.following, self.gains, nodes)


def _check(phrase: str, tokenizer: Tokenizer, where: str) -> None:
    odd = sorted(set(phrase) - set(tokenizer.alphabet))
    if odd:
        raise ConfigError(
            f"{where}: {''.join(odd)!r} is outside the model's alphabet {tokenizer.alphabet!r}"
        )


def _automaton(phrases: Sequence[Sequence[str]], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """The tables of HotWords. A phrase is spelled with a space before it, so that it starts where a word does."""
    (space,) = tokenizer.encode(" ")
    children: list[dict[int, int]] = [{space: 1}, {}]
    pending = [0.0, 0.0]  # characters that are lost if the phrase is left here
    whole = [False, False]
    for words in phrases:
        node = 1
        for token in tokenizer.encode(" ".join(words)):
            node = children[node].setdefault(token, len(children))
            if node == len(children):
                children.append({})
                pending.append(0.0)
                whole.append(False)
        whole[node] = True
    following = torch.zeros(len(children), tokenizer.size, dtype=torch.long)
    kept = [0.0] * len(children)  # characters of the longest whole phrase that ends here
    suffix = [0] * len(children)  # longest other node that ends alike
    queue = deque([0])
    while queue:
        node = queue.popleft()
        if node:
            kept[node] = pending[node] if whole[node] else kept[suffix[node]]
            following[node] = following[suffix[node]]
        for token, child in children[node].items():
            suffix[child] = int(following[node, token]) if node else 0
            following[node, token] = child
            confirmed = node < 2 or (whole[node] and token == space)
            pending[child] = float(node > 0) + (0.0 if confirmed else pending[node])
            queue.append(child)
    return following, _gains(following, torch.tensor(pending), torch.tensor(kept), space)


def _gains(following: Tensor, pending: Tensor, kept: Tensor, space: int) -> Tensor:
    """Characters (nodes, V) won or lost by each step: those pending after it, less those before that were not kept."""
    gains = pending[following] - pending[:, None]
    gains[:, space] += kept
    gains[:, Tokenizer.eos] = kept - pending
    return gains
