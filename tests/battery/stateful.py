"""How the battery plays a hypothesis state machine: a number of stories, the same ones for the same seed."""

from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

Machine = TypeVar("Machine", bound=RuleBasedStateMachine)


def explore(machine: type[Machine], examples: int, steps: int, seed: int = 1) -> None:
    """Play `examples` stories of up to `steps` steps. Raises what a broken promise raised, with the steps that led to it.

    A failure is shown as it was found: to make it smaller takes minutes, and a test's time limit would hide it.
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
    """The same; what went wrong in words, or nothing."""
    try:
        explore(machine, examples, steps, seed)
    except (AssertionError, HypothesisException) as error:
        return f"{error}"[:300] or type(error).__name__
    return ""
