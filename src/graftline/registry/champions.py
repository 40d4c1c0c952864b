"""Who was champion after whom, told from the promotion log, and the way back to the one before."""

from graftline.errors import GraftlineError
from graftline.registry.client import Registry
from graftline.registry.promotions import REGISTERING, Promotion, log_promotion, read_promotions
from graftline.registry.versions import CHAMPION, champion, find_version
from graftline.storage.locks import lock
from graftline.workspace import workspace

_EVENTS = {
    "promoted": "version {version} became champion{before}",
    "kept": "version {version} was not promoted, version {before} stayed champion",
    "restored": "version {version} was made champion by hand{before}",
}


def succession(entries: list[Promotion], present: str) -> list[str]:
    """Returns the champions that a way back leads through, the present one last.

    A restored version takes those that came after it off the list, so that going back twice leads back two champions
    and not forth again. Champions that somebody set by hand are on the list as far as the log shows them.

    Args:
        entries: The log, oldest first.
        present: The present champion.
    """
    champions: list[str] = []
    for entry in entries:
        for version in (entry.before, entry.champion):
            if version and version in champions:
                del champions[champions.index(version) + 1 :]
            elif version:
                champions.append(version)
    if present not in champions:
        return [*champions, present]
    return champions[: champions.index(present) + 1]


def roll_back(registry: Registry, name: str, to: str = "") -> Promotion:
    """Makes an earlier version champion again and logs it.

    Args:
        registry: An open registry.
        name: Registered model's name.
        to: The version; empty is the champion before the present one.

    Returns:
        The entry that was added to the log.

    Raises:
        GraftlineError: There is no champion, none before it, or no such version.
    """
    with lock(workspace() / REGISTERING):
        present = champion(registry, name)
        if present is None:
            raise GraftlineError(f"the registry at {registry.shown} has no champion of {name}: nothing to roll back")
        to = to or _previous(registry, name, present.version)
        if not to.isdigit() or find_version(registry, name, to) is None:
            raise GraftlineError(f"{name} has no version {to!r}: `graftline history --name {name}` lists its champions")
        if to == present.version:
            raise GraftlineError(f"{name} version {to} is the champion already: nothing was changed")
        registry.client.set_registered_model_alias(name, CHAMPION, to)
        why = "`graftline rollback`"
        return log_promotion(registry, name, "restored", to, present.version, why)


def _previous(registry: Registry, name: str, present: str) -> str:
    champions = succession(read_promotions(registry, name), present)
    if len(champions) < 2:
        raise GraftlineError(
            f"{name} version {present} is the first champion: there is none before it to restore, "
            "name another version with --to"
        )
    return champions[-2]


def tell_history(registry: Registry, name: str) -> str:
    """Returns the promotion log as text: two lines an entry, oldest first, and the present champion.

    Raises:
        GraftlineError: The registry has no champion and no log of such a model.
    """
    entries, holder = read_promotions(registry, name), champion(registry, name)
    if not entries and holder is None:
        raise GraftlineError(f"the registry at {registry.shown} knows no champion of {name!r}: check --name")
    lines = [line for entry in entries for line in _lines(entry)]
    return "\n".join([*lines, f"now: {_now(entries, holder.version if holder else '')}"])


def _now(entries: list[Promotion], present: str) -> str:
    changes = [entry for entry in entries if entry.event != "kept"]
    if not present:
        return "there is no champion, its alias was deleted in MLflow"
    if not changes or changes[-1].champion != present:
        return f"version {present} is champion, set in MLflow by hand or before there was a log"
    return f"version {present} is champion, since {changes[-1].when:%Y-%m-%d %H:%M:%S} UTC"


def _lines(entry: Promotion) -> list[str]:
    event = _EVENTS[entry.event]
    before = entry.before if entry.event == "kept" else f" after version {entry.before}" if entry.before else ""
    told = event.format(version=entry.version, before=before)
    run = f", run {entry.run}" if entry.run else ""
    return [f"{entry.when:%Y-%m-%d %H:%M:%S} UTC  {told} (by {entry.who}{run})", f"{'':25}{entry.why}"]
