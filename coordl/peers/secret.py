"""Who may speak to whom: a token all servers of a job share, and perhaps TLS.

The token never travels. Who connects is answered with a proof that the other side has it, made for
the nonce it sent, and proves the same for that run of the server in every call.

Environment:
    COORDL_TOKEN            the token, as a launcher hands it to its processes
    COORDL_TOKEN_FILE       or the file with it; ~/.config/coordl/token by default (`coordl token`)
    COORDL_TLS_CERT, COORDL_TLS_KEY, COORDL_TLS_CA
                            PEM files: this server's certificate and key, and who signs the
                            others'. All three: every connection is TLS, both sides authenticated
    COORDL_PEERS_INSECURE   1: no token is needed on loopback. For tests
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from coordl.errors import PeerError

_LEAST = 16  # characters of a token


@dataclass(frozen=True)
class Tls:
    """PEM texts: of this side, and of who signs the other's."""

    certificate: bytes
    key: bytes
    authority: bytes


@dataclass(frozen=True)
class Secrets:
    """What one process knows. Without a token only loopback may be spoken to, where that was
    asked for."""

    token: bytes
    tls: Tls | None = None

    @classmethod
    def from_environment(cls) -> Secrets:
        """Raises PeerError: a file that others may read or is not ours, or half of TLS."""
        return cls(_token(), _tls())

    def check(self, host: str) -> None:
        """Raises PeerError unless that host may be spoken to with what is known."""
        if self.token:
            return
        if os.environ.get("COORDL_PEERS_INSECURE") == "1" and is_loopback(host):
            return
        raise PeerError(
            f"peers= needs a token to speak to {host}, and there is none. Run `coordl token` and "
            f"copy the file it makes to every server, or set COORDL_TOKEN for all of them."
        )

    def proof(self, *said: str) -> str:
        """What only who has the token can say of these words; hexadecimal."""
        words = b"".join(len(word.encode()).to_bytes(4, "little") + word.encode() for word in said)
        return hmac.new(self.token, b"coordl peers 1" + words, "sha256").hexdigest()

    def fingerprint(self, salt: str, version: int) -> str:
        """Tells servers with other secrets, or of another version, apart, and nothing of them."""
        parts = () if self.tls is None else (self.tls.certificate, self.tls.key, self.tls.authority)
        digests = [hashlib.sha256(part).hexdigest() for part in parts]
        return self.proof("settings", salt, str(version), *digests)

    def proves(self, proof: str, *said: str) -> bool:
        return hmac.compare_digest(proof.encode(), self.proof(*said).encode())


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_file() -> Path:
    """Where the token is looked for, and made."""
    named = os.environ.get("COORDL_TOKEN_FILE")
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(named) if named else Path(home) / "coordl" / "token"


def make_token(path: Path) -> None:
    """Writes a new token of 256 random bits, 0600. Raises FileExistsError where there is one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w") as file:
        file.write(secrets.token_hex(32) + "\n")


def _token() -> bytes:
    given = os.environ.get("COORDL_TOKEN")
    if given is None:
        path = token_file()
        try:
            given = _private(path).decode()
        except FileNotFoundError:
            if "COORDL_TOKEN_FILE" in os.environ:
                raise PeerError(
                    f"COORDL_TOKEN_FILE={path} is not there. Run `coordl token`."
                ) from None
            return b""
    given = given.strip()
    if len(given) < _LEAST:
        raise PeerError(
            f"the token has {len(given)} characters, too few to be secret: {_LEAST} or more. "
            "`coordl token` makes one."
        )
    return given.encode()


def _tls() -> Tls | None:
    names = ("COORDL_TLS_CERT", "COORDL_TLS_KEY", "COORDL_TLS_CA")
    paths = [os.environ.get(name) for name in names]
    if not any(paths):
        return None
    if not all(paths):
        missing = ", ".join(name for name, path in zip(names, paths, strict=True) if not path)
        raise PeerError(f"TLS needs certificate, key and authority: set {missing} as well")
    certificate, key, authority = (Path(str(path)) for path in paths)
    try:
        return Tls(certificate.read_bytes(), _private(key), authority.read_bytes())
    except OSError as error:
        raise PeerError(f"TLS: {error.filename}: {error.strerror}") from error


def _private(path: Path) -> bytes:
    """The file's bytes. Raises PeerError where others may read or write it."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(found.st_mode) & 0o077:
            raise PeerError(
                f"{path} is a secret others may read, or not this user's: chmod 600 {path}"
            )
        return file.read(1 << 20)
