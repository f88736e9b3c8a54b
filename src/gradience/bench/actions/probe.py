"""The probe: the adapter of the settings, trained from its step-0 state, which is kept."""

from gradience.bench.actions.action import Action, Attempt, Made


def make(attempt: Attempt) -> Made:
    """Write the untrained adapter to `step0`, train it, write it to `adapter`."""
    from gradience.bench.trial.training import train  # noqa: PLC0415 - torch, where it is needed

    attempt.host.write_untrained(attempt.paths.step0)
    training = train(attempt, attempt.paths.step0, alpha=attempt.trial.spec.lora.alpha)
    return Made(training=training)


PROBE = Action(
    description="train the adapter that is to be made smaller",
    make=make,
    needs_probe=False,
    trains=True,
    from_weights=False,
)
