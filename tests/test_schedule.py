"""The plan of a training as functions of the step: learning rate, loss weights, and where it ends."""

from dataclasses import replace

import pytest

from asr.errors import ConfigError, TrainingError
from asr.training.schedule import (
    Progress,
    TrainingOptions,
    check_end,
    end,
    fraction_done,
    goes_back,
    is_finished,
    is_longer,
    learning_rate,
    loss_weights,
    plan_end,
)


def _rates(
    options: TrainingOptions, steps_per_epoch: int = 10, seconds: float = 1.0
) -> list[float]:
    """The learning rate of every step of a whole training whose steps take `seconds`."""
    progress, rates = Progress(), []
    for _ in range(1000):
        plan_end(progress, options, steps_per_epoch)
        if is_finished(progress, options):
            return rates
        rates.append(learning_rate(progress, options))
        progress.step += 1
        progress.elapsed += seconds
    raise AssertionError("it does not end")


def test_rate_warms_up_stays_and_falls_linearly_to_zero() -> None:
    options = TrainingOptions(max_steps=20, warmup_steps=4, cooldown=0.5, learning_rate=1.0)
    rates = _rates(options)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:11] == pytest.approx([1.0] * 7)
    assert rates[10:] == pytest.approx([(10 - i) / 10 for i in range(10)])  # the next would be 0


def test_without_cooldown_the_rate_stays() -> None:
    assert _rates(TrainingOptions(max_steps=5, warmup_steps=0, cooldown=0.0)) == [1e-3] * 5


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (TrainingOptions(max_steps=7), 7),
        (TrainingOptions(epochs=2), 20),
        (TrainingOptions(epochs=0.5), 5),
        (TrainingOptions(epochs=0.01), 1),
        (TrainingOptions(epochs=2, max_steps=7), 7),
        (TrainingOptions(epochs=1, max_steps=70), 10),
        (TrainingOptions(hours=30 / 3600), 30),
        (TrainingOptions(hours=30 / 3600, max_steps=12), 12),
        (TrainingOptions(hours=30 / 3600, max_steps=120), 30),
    ],
)
def test_training_ends_at_the_first_limit_that_is_set(options: TrainingOptions, steps: int) -> None:
    assert len(_rates(options)) == steps


def test_hours_end_with_a_whole_cooldown_at_any_speed() -> None:
    options = TrainingOptions(hours=100 / 3600, warmup_steps=0, cooldown=0.2, learning_rate=1.0)
    for seconds in (0.5, 2.0):
        rates = _rates(options, seconds=seconds)
        assert len(rates) == pytest.approx(100 / seconds)
        assert rates[-1] == pytest.approx(1 / (0.2 * len(rates)))


def test_a_cooldown_that_grew_too_slow_is_cut_off() -> None:
    options = TrainingOptions(hours=100 / 3600, cooldown=0.5)
    progress = Progress(step=50, elapsed=50.0)
    assert plan_end(progress, options, 10)
    assert not is_finished(progress, options)
    assert is_finished(replace(progress, step=60, elapsed=111.0), options)


def test_the_end_is_planned_once() -> None:
    options, progress = TrainingOptions(max_steps=10, cooldown=0.5), Progress(step=5)
    assert plan_end(progress, options, 10)
    assert (progress.cooldown_step, progress.end_step) == (5, 10)
    assert not plan_end(progress, options, 10)
    assert not plan_end(progress, replace(options, max_steps=100), 10)
    assert (progress.cooldown_step, progress.end_step) == (5, 10)


def test_patience_ends_after_that_many_validations_without_a_better_one() -> None:
    options = TrainingOptions(patience=3)
    assert [is_finished(Progress(worse=worse), options) for worse in range(5)] == [
        *(False, False, False),
        *(True, True),
    ]
    assert not is_finished(Progress(worse=50), TrainingOptions(max_steps=9))


@pytest.mark.parametrize(
    ("changes", "longer"),
    [
        ({"max_steps": 100}, False),
        ({"max_steps": 105}, False),  # what an epoch's last batches may make of the same options
        ({"max_steps": 200}, True),
        ({"max_steps": 200, "hours": 1.0}, False),
        ({"max_steps": 100, "hours": 2.0}, False),
        ({"hours": 1.0}, False),
        ({"hours": 2.0}, True),
        ({"epochs": 10}, False),
        ({"epochs": 20}, True),
        ({"patience": 2}, True),
    ],
)
def test_a_finished_training_is_longer_only_if_all_limits_moved(
    changes: dict[str, float], longer: bool
) -> None:
    finished = Progress(step=100, elapsed=3600.0, cooldown_step=70, end_step=100)
    assert is_longer(finished, TrainingOptions(**changes), 10) == longer


def test_smoothing_sampling_and_guide_begin_and_end_where_they_say() -> None:
    options = TrainingOptions(
        label_smoothing=0.1,
        label_smoothing_from=10,
        sampling=0.2,
        sampling_from=20,
        guide=2.0,
        guide_steps=40,
    )
    weights = {step: loss_weights(step, options) for step in (0, 9, 10, 19, 20, 30, 40, 41)}
    smoothing = {step: w.label_smoothing for step, w in weights.items()}
    sampling = {step: w.sampling for step, w in weights.items()}
    assert {step for step, value in smoothing.items() if value == 0.1} == {10, 19, 20, 30, 40, 41}
    assert {step for step, value in sampling.items() if value == 0.2} == {20, 30, 40, 41}
    assert {smoothing[9], sampling[19]} == {0.0}
    assert [weights[step].guide for step in (0, 10, 20, 30, 40, 41)] == [2, 1.5, 1, 0.5, 0, 0]


def test_no_guide_steps_is_no_guide() -> None:
    assert loss_weights(0, TrainingOptions(guide_steps=0)).guide == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision", "fp16"),
        ("ctc", 1.5),
        ("cooldown", -0.1),
        ("accumulate", 0),
        ("log_every", 0),
        ("learning_rate", -1.0),
        ("hours", float("nan")),
        ("max_steps", -1),
        ("clip", 0.0),
        ("guide_width", 0.0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^training\.{name} .*{value}"):
        TrainingOptions(**{name: value})


def test_an_end_is_any_of_four_options() -> None:
    with pytest.raises(TrainingError, match=r"never end: set one of training\.hours, .*patience"):
        check_end(TrainingOptions(), validates=True)
    for name in ("hours", "epochs", "max_steps", "patience"):
        check_end(TrainingOptions(**{name: 1}), validates=True)
    with pytest.raises(TrainingError, match=r"training\.patience: without dev"):
        check_end(TrainingOptions(patience=1), validates=False)
    check_end(TrainingOptions(patience=1, epochs=2), validates=False)


def test_what_patience_has_ended_does_not_go_back_for_more_hours() -> None:
    progress = Progress(step=80, elapsed=3600.0, cooldown_step=70, worse=3)
    assert goes_back(progress, TrainingOptions(hours=2.0), 100)
    assert not goes_back(progress, TrainingOptions(hours=2.0, patience=3), 100)


def test_fraction_done_follows_whichever_end_is_nearer() -> None:
    progress = Progress(step=30, elapsed=900.0)
    assert fraction_done(progress, TrainingOptions(max_steps=120), 10) == 0.25
    assert fraction_done(progress, TrainingOptions(hours=0.5), 10) == 0.5
    assert fraction_done(progress, TrainingOptions(max_steps=120, hours=0.5), 10) == 0.5
    assert fraction_done(progress, TrainingOptions(epochs=3), 10) == 1.0
    assert fraction_done(progress, TrainingOptions(patience=3), 10) < 1e-6


def test_with_hours_the_rate_reaches_0_at_the_hour_however_the_pace_changes() -> None:
    options = TrainingOptions(hours=1.0, learning_rate=1.0, warmup_steps=1, cooldown=0.5)
    progress = Progress(step=1000, elapsed=1800.0)  # quick steps at first
    assert plan_end(progress, options, 100)
    rates = []
    while not is_finished(progress, options):
        rates.append(learning_rate(progress, options))
        progress.step += 1
        progress.elapsed += 18.0  # slow ones later
    assert len(rates) == 100
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(0.01)
    assert progress.elapsed == 3600.0


def test_the_rate_never_exceeds_its_peak_when_a_cooldown_is_resumed_with_more_time() -> None:
    progress = Progress(step=1000, elapsed=0.8 * 3600)
    assert plan_end(progress, TrainingOptions(hours=1.0), 100)
    longer = TrainingOptions(hours=4.0)
    assert learning_rate(progress, longer) == longer.learning_rate


def test_steps_end_a_training_whose_cooldown_the_clock_began() -> None:
    progress = Progress(step=1000, elapsed=0.8 * 3600)
    assert plan_end(progress, TrainingOptions(hours=1.0), 100)
    by_steps = TrainingOptions(max_steps=1010)
    rates = []
    while not is_finished(progress, by_steps):
        plan_end(progress, by_steps, 100)
        rates.append(learning_rate(progress, by_steps))
        progress.step += 1
    assert progress.step == 1010
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(by_steps.learning_rate / 10)


def test_the_clock_takes_the_rate_to_0_where_it_ends_before_the_steps() -> None:
    options = TrainingOptions(
        hours=1.0, max_steps=120, cooldown=0.5, learning_rate=1.0, warmup_steps=1
    )
    progress = Progress(step=60, elapsed=3000.0)
    assert plan_end(progress, options, 100)
    progress.elapsed = 3599.0
    assert learning_rate(progress, options) < 0.001


@pytest.mark.parametrize(
    ("hours", "cooldown_step", "back"),
    [(1.85, 30, True), (3.5, 30, True), (1.05, 30, False), (1.0, 30, False), (1.85, 0, False)],
)
def test_more_hours_than_a_finished_training_had_go_back_to_its_plateau(
    hours: float, cooldown_step: int, back: bool
) -> None:
    """Also where by the new hours the rate would fall before the old end; where there is no plateau it trains on."""
    progress = Progress(step=100, elapsed=3600.0, cooldown_step=cooldown_step)
    end(progress)
    options = TrainingOptions(hours=hours, cooldown=0.7)
    assert goes_back(progress, options, 10) == back
    assert is_finished(progress, options) == (hours == 1.0 or cooldown_step > 0)


@pytest.mark.parametrize(
    ("max_steps", "cooldown", "back"), [(200, 0.5, True), (105, 0.5, False), (200, 1.0, False)]
)
def test_more_steps_than_a_cooldown_was_planned_for_go_back_to_its_plateau(
    max_steps: int, cooldown: float, back: bool
) -> None:
    """Interrupted as the rate falls; one that fell from the first step has no plateau."""
    options = TrainingOptions(max_steps=100, cooldown=cooldown)
    progress = Progress(step=round(100 - 100 * cooldown))
    assert plan_end(progress, options, 10)
    progress.step = 70
    assert not goes_back(progress, options, 10)
    assert goes_back(progress, replace(options, max_steps=max_steps), 10) == back


def test_more_steps_do_not_go_back_where_the_clock_would_let_the_rate_fall_at_once() -> None:
    options = TrainingOptions(hours=4.0, max_steps=1000, cooldown=0.3)
    progress = Progress(step=740, elapsed=3.2 * 3600, cooldown_step=650, end_step=1000)
    assert not goes_back(progress, replace(options, max_steps=2000), 10)
    progress.elapsed = 2.0 * 3600
    assert goes_back(progress, replace(options, max_steps=2000), 10)
