"""asr.model.attention: what the weights must be for every kind, and each kind against its equation."""

import pytest
import torch
from models import KINDS
from torch import Tensor
from torch.nn import functional as F

from asr.errors import ConfigError
from asr.model import Memory
from asr.model.attention import ATTENTIONS, Attention, AttentionOptions, masked_softmax
from asr.model.memory import length_mask

BATCH, QUERIES, STEPS, QUERY, WIDTH, SPACE = 3, 4, 7, 6, 8, 12
LENGTHS = torch.tensor([7, 4, 1])


def make(kind: str, lengths: Tensor = LENGTHS) -> tuple[Attention, Memory]:
    """An attention with weights large enough to be sharp, and a memory that is zero past the lengths."""
    options = AttentionOptions(
        kind=kind, width=SPACE, heads=4, location_channels=3, location_kernel=5
    )
    attention = ATTENTIONS[kind](QUERY, WIDTH, options)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.mul_(3)
    mask = length_mask(lengths, STEPS)
    values = torch.randn(len(lengths), STEPS, WIDTH) * mask[:, :, None]
    return attention, Memory(values, lengths, attention.keys(values), mask)


def make_history(memory: Memory) -> Tensor:
    """Weights of a step before and their sum (B, 2, U), on valid steps only."""
    weights = masked_softmax(torch.randn(2, *memory.mask.shape), memory.mask)
    return weights.transpose(0, 1) * torch.tensor([1.0, 3.0])[:, None]


def make_query(attention: Attention, seed: int = 5) -> Tensor:
    queries = 1 if attention.looks_back else QUERIES
    return torch.randn(BATCH, queries, QUERY, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_sum_to_1_and_are_exactly_0_past_the_length(kind: str) -> None:
    attention, memory = make(kind)
    query = make_query(attention)
    context, weights = attention(query, memory, make_history(memory))
    assert context.shape == (BATCH, query.shape[1], WIDTH)
    assert weights.shape == (BATCH, query.shape[1], STEPS)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert (weights >= 0).all()
    for row, length in zip(weights, LENGTHS.tolist(), strict=True):
        assert torch.equal(row[:, length:], torch.zeros_like(row[:, length:]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fixed"])
def test_a_row_is_the_average_of_the_values_it_names(kind: str) -> None:
    attention, memory = make(kind)
    memory = Memory(torch.ones_like(memory.values), memory.lengths, memory.keys, memory.mask)
    context, _ = attention(make_query(attention), memory, make_history(memory))
    torch.testing.assert_close(context, torch.ones_like(context))


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_without_steps_gets_no_weight_and_no_nan(kind: str) -> None:
    attention, memory = make(kind, torch.tensor([7, 0, 1]))
    context, weights = attention(make_query(attention), memory, make_history(memory))
    assert torch.equal(weights[1], torch.zeros_like(weights[1]))
    assert torch.equal(context[1], torch.zeros_like(context[1]))
    if kind != "fixed":
        (context.sum() + weights.square().sum()).backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in attention.parameters())


def test_fixed_attention_ignores_the_query() -> None:
    attention, memory = make("fixed")
    first = attention(make_query(attention, seed=1), memory, make_history(memory))
    second = attention(make_query(attention, seed=2), memory, make_history(memory))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert list(attention.parameters()) == []


def test_fixed_attention_is_the_last_state_of_either_direction() -> None:
    attention, memory = make("fixed")
    context, _ = attention(make_query(attention), memory, make_history(memory))
    for row, values, length in zip(context, memory.values, LENGTHS.tolist(), strict=True):
        ahead, back = values[length - 1, : WIDTH // 2], values[0, WIDTH // 2 :]
        assert torch.equal(row, torch.cat([ahead, back]).expand(QUERIES, -1))


@pytest.mark.parametrize("kind", ["dot", "additive", "location", "multihead"])
def test_the_query_decides_where_it_looks(kind: str) -> None:
    attention, memory = make(kind)
    history = make_history(memory)
    first = attention(make_query(attention, seed=1), memory, history)[1]
    second = attention(make_query(attention, seed=2), memory, history)[1]
    assert (first[0] - second[0]).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_only_location_attention_sees_where_it_looked_before(kind: str) -> None:
    attention, memory = make(kind)
    query, history = make_query(attention), make_history(memory)
    base = attention(query, memory, history)[1]
    for part in range(2):  # the step before, and the sum of all
        changed = history.clone()
        changed[:, part] = changed[:, part].roll(2, -1) * memory.mask
        difference = (attention(query, memory, changed)[1] - base)[0].abs().max()
        assert (difference > 1e-4) == (kind == "location"), part


def test_dot_is_the_scaled_dot_product() -> None:
    attention, memory = make("dot")
    query = make_query(attention)
    expected = F.scaled_dot_product_attention(
        attention.query(query), memory.keys, memory.values, attn_mask=memory.mask[:, None]
    )
    torch.testing.assert_close(attention(query, memory, make_history(memory))[0], expected)


def test_multihead_is_a_scaled_dot_product_in_every_head() -> None:
    attention, memory = make("multihead")
    query = make_query(attention)
    queries = attention.query(query)
    contexts = []
    for head in range(4):
        space, values = slice(3 * head, 3 * head + 3), slice(2 * head, 2 * head + 2)
        contexts.append(
            F.scaled_dot_product_attention(
                queries[..., space],
                memory.keys[..., space],
                memory.values[..., values],
                attn_mask=memory.mask[:, None],
            )
        )
    context, _ = attention(query, memory, make_history(memory))
    torch.testing.assert_close(context, torch.cat(contexts, -1))


def test_additive_is_bahdanaus_equation() -> None:
    attention, memory = make("additive")
    query = make_query(attention)
    _, weights = attention(query, memory, make_history(memory))
    for b, length in enumerate(LENGTHS.tolist()):
        for q in range(QUERIES):
            compared = torch.tanh(attention.query(query[b, q]) + memory.keys[b, :length])
            expected = (compared @ attention.energy.weight[0]).softmax(-1)
            torch.testing.assert_close(weights[b, q, :length], expected)


def test_location_is_additive_with_a_convolution_over_the_history() -> None:
    attention, memory = make("location")
    query, history = make_query(attention), make_history(memory)
    filters = attention.location.weight.unflatten(1, (2, 5))
    seen = attention.project(F.conv1d(history, filters, padding=2).transpose(1, 2))
    compared = torch.tanh(attention.query(query) + memory.keys + seen)
    expected = masked_softmax(
        (compared @ attention.energy.weight[0])[:, None], memory.mask[:, None]
    )
    torch.testing.assert_close(attention(query, memory, history)[1], expected)


def test_energies_of_any_size_give_finite_weights() -> None:
    energies = torch.tensor([[[1e30, -1e30, 0.0], [-1e30, -1e30, 1e30]]])
    mask = torch.tensor([[[True, True, False]]])
    weights = masked_softmax(energies, mask)
    assert torch.equal(weights, torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]]))


def test_weights_are_float32_whatever_the_energies_are() -> None:
    energies = torch.zeros(1, 1, 3, dtype=torch.bfloat16)
    weights = masked_softmax(energies, torch.ones(1, 1, 3, dtype=torch.bool))
    torch.testing.assert_close(weights, torch.full((1, 1, 3), 1 / 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "hard"}, "'hard'.*fixed, dot, additive, location, multihead"),
        ({"location_kernel": 4}, "location_kernel 4: must be odd"),
        ({"kind": "multihead", "width": 10, "heads": 4}, "heads 4: must divide .*width 10"),
        ({"heads": 0}, "heads 0: must be at least 1"),
        ({"width": 0}, "width 0: must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AttentionOptions(**options)


def test_heads_matter_to_multihead_attention_alone() -> None:
    assert AttentionOptions(kind="location", width=10, heads=4).width == 10
    with pytest.raises(ConfigError, match="memory width 6"):
        ATTENTIONS["multihead"](QUERY, 6, AttentionOptions(kind="multihead", width=8, heads=4))
