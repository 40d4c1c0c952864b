"""The Git repository in which versions of the data are recorded, one commit and one tag each.

A repository with a working tree is used in place; a bare one or a URL is cloned to the cache and pushed to.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graftline.errors import GraftlineError
from graftline.files import sha256_bytes
from graftline.storage.addresses import refuse_credentials, without_password
from graftline.storage.locks import lock
from graftline.workspace import cache_folder, workspace

# What a Git hook leaves in the environment would lead our commands to the repository of the hook.
_OF_ANOTHER_REPOSITORY = frozenset(
    ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
)
_URL = re.compile(r"[\w+.-]+://.+|[\w.-]+@[\w.-]+:.+")
# In the workspace's own registry nobody signs and no hook of the user's has a say; in one of theirs both do.
_UNTOUCHED = ("-c", "commit.gpgsign=false", "-c", "tag.gpgSign=false", "-c", "core.hooksPath=/dev/null")
_OVERTAKEN = ("[rejected]", "cannot lock ref", "failed to update ref", "incorrect old value")


@dataclass(frozen=True)
class GitRegistry:
    """An open registry.

    Attributes:
        root: Its working tree.
        name: What the user calls it, without passwords.
        upstream: Whether commits are pushed to where it was cloned from.
        options: Of git, before each of its commands.
    """

    root: Path
    name: str
    upstream: bool
    options: tuple[str, ...] = ()

    def versions(self) -> list[str]:
        """Returns the tags, the newest first."""
        return self._git("tag", "--sort=-creatordate").split()

    def has(self, version: str) -> bool:
        """Returns whether there is a tag `version`."""
        return version in self.versions()

    def refresh(self) -> None:
        """Brings a clone to the state of its origin, dropping what was not pushed."""
        if not self.upstream:
            return
        self._git("fetch", "--quiet", "--force", "--prune", "--prune-tags", "origin")
        branch = f"refs/remotes/origin/{self._branch()}"
        if self._git("for-each-ref", branch):
            self._git("reset", "--quiet", "--hard", branch)

    def publish(self, version: str, message: str, paths: list[str]) -> bool:
        """Commits those of `paths` that exist, tags the commit, and pushes both of a clone.

        Returns:
            False when somebody else pushed meanwhile: refresh, write the files again and repeat.
        """
        paths = [path for path in paths if (self.root / path).exists()]
        self._git("add", "--", *paths)
        if self._git("status", "--porcelain", "--", *paths):
            self._git(*self._identity(), "commit", "--quiet", "-m", message, "--", *paths)
        self._git(*self._identity(), "tag", version)
        return not self.upstream or self._push(version)

    def _push(self, version: str) -> bool:
        branch = f"HEAD:refs/heads/{self._branch()}"
        try:
            self._git("push", "--quiet", "--atomic", "origin", branch, f"refs/tags/{version}")
        except GraftlineError as error:
            if any(word in str(error) for word in _OVERTAKEN):
                return False
            raise
        return True

    def _branch(self) -> str:
        return self._git("symbolic-ref", "--short", "HEAD")

    def _identity(self) -> list[str]:
        """Returns options that name an author where the machine names none."""
        known = _run(["-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"], self.root).returncode == 0
        return [] if known else ["-c", "user.name=graftline", "-c", "user.email=graftline@localhost"]

    def _git(self, *arguments: str) -> str:
        return _git([*self.options, *arguments], self.root, self.name)


def check_address(registry: str) -> None:
    """Refuses an address with credentials in it: Git would keep them in the clone, and a run in its arguments.

    Raises:
        GraftlineError: It has some.
    """
    refuse_credentials("the address of the data registry", registry, "give them to git's credential helper, or use SSH")


@contextlib.contextmanager
def open_registry(registry: str, create: bool) -> Iterator[GitRegistry]:
    """Yields the registry at its newest state, to this process alone.

    Args:
        registry: Root or bare folder of a Git repository, or a URL; '' for `data-registry` in the workspace.
        create: Whether to make the workspace's own registry when it is missing.

    Raises:
        GraftlineError: It has credentials in it, is no Git repository, does not answer, or git is not installed.
    """
    check_address(registry)
    name = without_password(registry or str(workspace() / "data-registry"))
    if registry and (_URL.fullmatch(registry) or _is_bare(Path(registry))):
        root = cache_folder() / "registries" / sha256_bytes(registry.encode())[:16]
        with lock(root.with_suffix(".lock")):
            _clone(registry, root, name)
            opened = GitRegistry(root, name, upstream=True)
            opened.refresh()
            yield opened
        return
    root = Path(registry).absolute() if registry else workspace() / "data-registry"
    if not registry and create and not (root / ".git").exists():
        root.mkdir(parents=True, exist_ok=True)
        _git(["init", "--quiet", "--initial-branch=main"], root, name)
    if not (root / ".git").exists():
        raise GraftlineError(f"{name} is not a Git repository: give the root folder or the URL of a data registry")
    git_folder = Path(_git(["rev-parse", "--absolute-git-dir"], root, name))
    with lock(git_folder / "graftline.lock"):
        yield GitRegistry(root, name, upstream=False, options=() if registry else _UNTOUCHED)


def _is_bare(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir()


def _clone(registry: str, root: Path, name: str) -> None:
    if (root / ".git").exists():
        return
    source = registry if _URL.fullmatch(registry) else str(Path(registry).absolute())
    # The lock is ours, so what lies there is the rest of a clone that was broken off: git finishes it.
    root.mkdir(parents=True, exist_ok=True)
    _git(["clone", "--quiet", "--", source, str(root)], root.parent, name)


def _git(arguments: list[str], folder: Path, name: str) -> str:
    done = _run(arguments, folder)
    if done.returncode:
        command = next(word for word in arguments if word not in ("-c",) and "=" not in word)
        raise GraftlineError(f"git {command} failed for the data registry {name}: {_reason(done.stderr)}")
    return done.stdout.strip()


def _run(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    kept = {key: value for key, value in os.environ.items() if key not in _OF_ANOTHER_REPOSITORY}
    kept |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    kept.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=15")
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=kept,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError as error:
        raise GraftlineError(
            "git is not installed, and versions of the data are recorded with it: install it"
        ) from error


def _reason(stderr: str) -> str:
    """Returns git's own reason on one line, without passwords."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("hint:")]
    return without_password(" ".join(lines)) or "git gave no reason"
