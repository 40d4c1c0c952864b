"""Registering an edge bundle: once, with its lineage, and with the alias it earns."""

import tempfile
from pathlib import Path

from graftline.progress import say
from graftline.records import Registration
from graftline.registry.candidate import Candidate
from graftline.registry.client import Registry
from graftline.registry.comparison import Promote, judge
from graftline.registry.promotions import REGISTERING, Event, log_promotion, past_champions, read_promotions
from graftline.registry.versions import (
    CHAMPION,
    RegisteredVersion,
    champion,
    create_version,
    find_bundle,
    find_version,
    write_decision,
    write_outcome,
)
from graftline.storage.locks import lock
from graftline.workspace import workspace


def register(registry: Registry, dataset: Path, candidate: Candidate, name: str, promote: Promote) -> Registration:
    """Registers a bundle as a version of a model, or returns what became of it when it is registered already.

    Aliases move only when a bundle is registered for the first time: registering it again never undoes what later
    versions earned or what somebody set by hand.

    Args:
        registry: An open registry.
        dataset: The dataset folder; its test images decide the alias.
        candidate: The checked bundle with its evaluation.
        name: Registered model's name; made when there is none.
        promote: What it takes to become champion in the place of another.

    Raises:
        GraftlineError: The registry fails, or the champion's file is not the one that was registered.
    """
    with lock(workspace() / REGISTERING):
        version = find_bundle(registry, name, candidate.bundle.sha256)
        if version and version.outcome:
            say(f"this bundle is {name} version {version.version} already: nothing was uploaded")
            return version.outcome
        return _decide(registry, dataset, candidate, version or _upload(registry, candidate, name), promote)


def _upload(registry: Registry, candidate: Candidate, name: str) -> RegisteredVersion:
    with tempfile.TemporaryDirectory() as temporary:
        candidate.lay_out(Path(temporary))
        return create_version(
            registry, name, Path(temporary), candidate.tags(), candidate.params(), candidate.metrics()
        )


def _decide(
    registry: Registry, dataset: Path, candidate: Candidate, version: RegisteredVersion, promote: Promote
) -> Registration:
    """Sets the alias that an earlier, interrupted registration decided on, or that a comparison with the champion does.

    The decision is written down before anything is moved, so that one that goes on later tells the same.
    """
    present = champion(registry, version.name)
    # Read after the champion: another machine that has made it champion wrote its decision down before.
    version = find_version(registry, version.name, version.version) or version
    holder, outcome = present.version if present else "", version.decision
    if outcome and _was_replaced(registry, outcome, holder):
        say(
            f"{version.name} version {version.version} was champion already, version {holder} is now: no alias is moved"
        )
        write_outcome(registry, version, outcome)
        return outcome
    if not outcome or not _still_fits(outcome, holder):
        outcome = _judged(registry, dataset, candidate, version, present, promote)
        if champion(registry, version.name) != present:  # another machine has moved it meanwhile
            return _decide(registry, dataset, candidate, version, promote)
        write_decision(registry, version, outcome)
    registry.client.set_registered_model_alias(version.name, outcome.alias, version.version)
    _log(registry, outcome)
    write_outcome(registry, version, outcome)
    return outcome


def _was_replaced(registry: Registry, decision: Registration, holder: str) -> bool:
    """Whether the version became champion and another, a restored or a later one, took its place since."""
    return holder not in ("", decision.version) and decision.version in past_champions(registry, decision.name)


def _still_fits(decision: Registration, holder: str) -> bool:
    """Whether the champion is the one that the decision was about, or the one that it made."""
    made = decision.version if decision.alias == CHAMPION else decision.champion_before
    return holder in (decision.champion_before, made)


def _judged(
    registry: Registry,
    dataset: Path,
    candidate: Candidate,
    version: RegisteredVersion,
    present: RegisteredVersion | None,
    promote: Promote,
) -> Registration:
    verdict = judge(registry, dataset, candidate, version, present, promote)
    return Registration(
        data_version=candidate.bundle.data_version,
        bundle=candidate.bundle.sha256,
        name=version.name,
        version=version.version,
        alias=verdict.alias,
        reason=verdict.reason,
        champion_before=verdict.champion_before,
        difference=verdict.difference,
    )


def _log(registry: Registry, outcome: Registration) -> None:
    """Adds the decision to the promotion log, unless the log says so already."""
    event: Event = "promoted" if outcome.alias == CHAMPION else "kept"
    decision, log = (event, outcome.version, outcome.champion_before), read_promotions(registry, outcome.name)
    by_hand = event == "promoted" and bool(log) and log[-1].champion == outcome.version
    if not by_hand and decision not in [(entry.event, entry.version, entry.before) for entry in log]:
        log_promotion(registry, outcome.name, event, outcome.version, outcome.champion_before, outcome.reason)
