"""Queries (B, L, Q) and a memory in, contexts (B, L, D) and weights (B, L, U) out.

`fixed` ignores the query and is the classic encoder-decoder; `dot`, `additive` and `multihead` compare contents;
`location` also looks at where it looked before. The L queries of an utterance are those of its L steps, all at once
where the attention does not look back, or of L hypotheses of a beam, which then share one memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.model.memory import Memory
from asr.options import check_range


@dataclass(frozen=True)
class AttentionOptions:
    """Kind and sizes of the attention."""

    kind: str = "location"  # fixed | dot | additive | location | multihead
    width: int = 128  # A, the space in which queries and keys are compared
    heads: int = 4  # multihead only; must divide both the width and the memory's width
    location_channels: int = 10  # location only: convolution filters over the weights before
    location_kernel: int = 31  # location only: their reach in memory steps, odd

    def __post_init__(self) -> None:
        if self.kind not in ATTENTIONS:
            raise ConfigError(f"attention kind {self.kind!r}: allowed are {', '.join(ATTENTIONS)}")
        if self.location_kernel % 2 == 0:
            raise ConfigError(f"attention location_kernel {self.location_kernel}: must be odd")
        sizes = ("width", "heads", "location_channels", "location_kernel")
        check_range(self, "model.decoder.attention", sizes, 1)
        if self.kind == "multihead" and self.width % self.heads:
            raise ConfigError(
                f"attention heads {self.heads}: must divide the attention width {self.width}"
            )


class Attention(nn.Module):
    """Base: softmax over the energies of the valid memory steps; rows sum to 1 and are exactly 0 past the length."""

    looks_back = False  # needs the weights of the step before, so queries come one at a time

    def __init__(self, query_width: int, memory_width: int, options: AttentionOptions) -> None:
        super().__init__()
        self.key = nn.Linear(memory_width, options.width)
        self.query = nn.Linear(query_width, options.width, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """Values (B, U, D) to keys (B, U, A), once per utterance."""
        keys: Tensor = self.key(values)
        return keys

    def energies(self, query: Tensor, memory: Memory, history: Tensor) -> Tensor:
        """Projected query (B, L, A) to (B, L, U), before the mask.

        `history` (B * L, 2, U) holds the weights of the step before and the sum of all earlier ones.
        """
        raise NotImplementedError

    def weights(self, query: Tensor, memory: Memory, history: Tensor) -> Tensor:
        """Projected query (B, L, A) to weights (B, L, U)."""
        return masked_softmax(self.energies(query, memory, history), memory.mask[:, None])

    def forward(self, query: Tensor, memory: Memory, history: Tensor) -> tuple[Tensor, Tensor]:
        """Query (B, L, Q) to context (B, L, D) and weights (B, L, U)."""
        weights = self.weights(self.query(query), memory, history)
        return weights @ memory.values, weights


class Fixed(Attention):
    """No attention: the last state of either direction is all the decoder gets.

    The weights are 1 on the last step, where the forward half of the context comes from. Source: Sutskever et al.
    2014; Cho et al. 2014.
    """

    def __init__(self, query_width: int, memory_width: int, options: AttentionOptions) -> None:
        nn.Module.__init__(self)

    def keys(self, values: Tensor) -> Tensor:
        """There is nothing to compare: (B, U, 0)."""
        return values[:, :, :0]

    def forward(self, query: Tensor, memory: Memory, history: Tensor) -> tuple[Tensor, Tensor]:
        """The same context (B, L, D) for every query."""
        batch, steps, width = memory.values.shape
        last = (memory.lengths - 1).clamp(min=0)
        ahead = memory.values[torch.arange(batch, device=last.device), last, : width // 2]
        back = memory.values[:, 0, width // 2 :]
        context = torch.cat([ahead, back], dim=-1)[:, None].expand(-1, query.shape[1], -1)
        weights = nn.functional.one_hot(last, steps) * memory.mask
        return context, weights.float()[:, None].expand(-1, query.shape[1], -1)


class Dot(Attention):
    """Scaled dot product of query and key (Luong et al. 2015; Vaswani et al. 2017, eq. 1)."""

    def energies(self, query: Tensor, memory: Memory, history: Tensor) -> Tensor:
        """(B, L, A) to (B, L, U)."""
        energies: Tensor = query @ memory.keys.transpose(1, 2)
        return energies / query.shape[-1] ** 0.5


class Additive(Attention):
    """v . tanh(W query + V value) (Bahdanau et al. 2015, appendix A.1.2)."""

    def __init__(self, query_width: int, memory_width: int, options: AttentionOptions) -> None:
        super().__init__(query_width, memory_width, options)
        self.energy = nn.Linear(options.width, 1, bias=False)

    def energies(self, query: Tensor, memory: Memory, history: Tensor) -> Tensor:
        """(B, L, A) to (B, L, U)."""
        energies: Tensor = self.energy((query[:, :, None] + memory.keys[:, None]).tanh_())
        return energies[..., 0]


class Location(Additive):
    """Additive, with convolutions over where it looked before (Chorowski et al. 2015, eq. 8-9).

    The filters see the weights of the step before and the sum of all earlier ones (Shen et al. 2018, Tacotron 2).
    """

    looks_back = True

    def __init__(self, query_width: int, memory_width: int, options: AttentionOptions) -> None:
        super().__init__(query_width, memory_width, options)
        self.kernel = options.location_kernel
        self.location = nn.Linear(2 * self.kernel, options.location_channels, bias=False)
        self.project = nn.Linear(options.location_channels, options.width, bias=False)

    def energies(self, query: Tensor, memory: Memory, history: Tensor) -> Tensor:
        """(B, L, A) and (B * L, 2, U) to (B, L, U)."""
        reach = self.kernel // 2
        windows = nn.functional.pad(history, (reach, reach)).unfold(2, self.kernel, 1)
        windows = windows.transpose(1, 2).flatten(2).unflatten(0, query.shape[:2])
        # A convolution written as a product of matrices: cheaper on short inputs.
        compared = self.project(self.location(windows))
        # In place: this is the largest tensor of a step, and fresh memory for it costs more than the sums.
        compared = compared.add_(memory.keys[:, None]).add_(query[:, :, None]).tanh_()
        energies: Tensor = self.energy(compared)
        return energies[..., 0]


class MultiHead(Attention):
    """Scaled dot products in H heads, each over its share of the memory's width (Vaswani et al. 2017, section 3.2.2).

    The weights returned are the mean over heads.
    """

    def __init__(self, query_width: int, memory_width: int, options: AttentionOptions) -> None:
        super().__init__(query_width, memory_width, options)
        self.heads = options.heads
        if memory_width % options.heads:
            raise ConfigError(
                f"attention heads {options.heads}: must divide the memory width {memory_width}"
            )

    def forward(self, query: Tensor, memory: Memory, history: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, Q) to (B, L, D) and (B, L, U)."""
        queries = self._split(self.query(query))
        energies = queries @ self._split(memory.keys).transpose(2, 3) / queries.shape[-1] ** 0.5
        weights = masked_softmax(energies, memory.mask[:, None, None])
        context = weights @ self._split(memory.values)
        return context.transpose(1, 2).flatten(2), weights.mean(1)

    def _split(self, values: Tensor) -> Tensor:
        """(B, N, D) to (B, H, N, D / H)."""
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)


ATTENTIONS: dict[str, type[Attention]] = {
    "fixed": Fixed,
    "dot": Dot,
    "additive": Additive,
    "location": Location,
    "multihead": MultiHead,
}


def masked_softmax(energies: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis in float32, exactly 0 where the mask is False, even if it is so everywhere."""
    energies = energies.float()
    return energies.masked_fill(~mask, torch.finfo(energies.dtype).min).softmax(-1) * mask
