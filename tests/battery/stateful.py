"""Run a hypothesis state machine in the battery: a number of examples, the same ones for the same seed."""

from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

Machine = TypeVar("Machine", bound=RuleBasedStateMachine)


def explore(machine: type[Machine], examples: int, steps: int, seed: int = 1) -> None:
    """Run `examples` examples of up to `steps` steps.

    Raises the failure of a broken promise with the steps that led to it. A failure is shown as it was found. Making it
    smaller takes minutes, longer than a test's time limit.
    """
    rules = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seeded(seed)(machine), settings=rules)


def failure(machine: type[Machine], examples: int, steps: int, seed: int = 1) -> str:
    """Run the examples. Returns the failure as text, or ""."""
    try:
        explore(machine, examples, steps, seed)
    except (AssertionError, HypothesisException) as error:
        return f"{error}"[:300] or type(error).__name__
    return ""
