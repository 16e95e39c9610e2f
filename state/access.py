"""Who may use a store from outside of this machine's user: keys, logins, and how often each may ask.

It is kept apart from the sessions, so that a flood of requests does not hold up a build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Account(str):
    """Whose data a caller may reach: as text, the account's name; and the one project that he is limited to, if any.

    Every verb of `SessionStore` takes it as `account`: what is not in that project is then as unknown as what is
    somebody else's.
    """

    __slots__ = ("project_id",)

    project_id: str | None

    def __new__(cls, name: str, project_id: str | None = None) -> Account:
        """`project_id` None: all projects of the account."""
        account = super().__new__(cls, name)
        account.project_id = project_id
        return account


def limited_to(account: str) -> str | None:
    """The one project that a caller's account is limited to, None where it is not."""
    return account.project_id if isinstance(account, Account) else None


@dataclass(frozen=True)
class ApiKey:
    """A key as the store knows it: not the key itself. Times are milliseconds since 1970."""

    id: str
    name: str
    account: Account
    read_only: bool
    shown: str
    """How the key begins: enough to tell it from others, not to use it."""
    created_at: int
    revoked_at: int | None = None
    last_used_at: int | None = None


@dataclass(frozen=True)
class Login:
    """A person's session at the chat's routes, got for a key. Ends when the key is revoked."""

    key: ApiKey
    id: str
    """Tells logins from one another, for limits and logs; useless to log in with."""
    expires_at: int


@dataclass(frozen=True)
class Window:
    """What is left of a limit: so many in any 60 seconds."""

    limit: int
    remaining: int
    """After this one; -1 when this one was one too many, and was not counted."""
    reset_at: int
    """When the oldest that counts stops counting, milliseconds since 1970."""

    @property
    def exceeded(self) -> bool:
        """Whether this one was too many."""
        return self.remaining < 0


@dataclass(frozen=True)
class Admission:
    """A credential that is good, and what is left of its limit."""

    key: ApiKey
    login: Login | None
    window: Window


class AccessStore(Protocol):
    """Keys, logins and limits of one store, the same for all processes.

    `digest` is the SHA-256 of a secret: secrets are never kept. What a verb of keys and logins has returned is durable;
    counts may be lost in a power cut. Any verb may raise `StoreUnavailable`.
    """

    async def create_key(
        self, name: str, account: Account, digest: bytes, shown: str, *, read_only: bool
    ) -> ApiKey:
        """A new key. Raises `KeyAlreadyExists` when a key of this name is in use, revoked ones aside."""
        ...

    async def keys(self) -> Sequence[ApiKey]:
        """All keys, oldest first, revoked ones too."""
        ...

    async def revoke_key(self, name_or_id: str) -> ApiKey:
        """From now on it is unknown, in every process, and so are its logins. Raises `KeyNotFound`."""
        ...

    async def admit(self, digest: bytes, limit: int) -> Admission | None:
        """Who has this key, and count one more request of it: `limit` in any 60 seconds, 0 for none.

        None when no key in use has it; then nothing is counted.
        """
        ...

    async def open_login(self, key_id: str, digest: bytes, seconds: float, idle: float) -> Login:
        """A login of this key, for `seconds` at most, and `idle` seconds without a request. Raises `KeyNotFound`."""
        ...

    async def admit_login(self, digest: bytes, limit: int) -> Admission | None:
        """As `admit`, for a login: it is counted for itself, not for its key. None also when its time is up."""
        ...

    async def end_login(self, digest: bytes) -> None:
        """From now on it is unknown."""
        ...

    async def good(self, key_id: str, login_id: str | None = None) -> bool:
        """Whether the key, and the login of it, are still in use: for what has been going on for long."""
        ...

    async def hit(self, bucket: str, limit: int) -> Window:
        """Count one more of anything, `limit` in any 60 seconds; 0 for none."""
        ...

    async def look(self, bucket: str, limit: int) -> Window:
        """What is left of `hit`'s, without counting: exceeded when there is no room for another one."""
        ...
