"""Who archived a WAL file: a signature over its object's name and its content.

Whoever has the key of WAL can seal an object; only who has the signing key of WAL as
well can sign one. docs/repository-format.md has the layout, "Signed WAL". On the path
of `wal push`: imports no more than that needs.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto.derive import length_prefixed
from drkit.crypto.signing import (
    foreign_signer,
    format_public,
    public_keys,
    verify,
)
from drkit.errors import Corrupt
from drkit.model.wal import WalFileKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from drkit.crypto.signing import Signer
    from drkit.model.wal import WalFileName
    from drkit.protocols import Buffer
    from drkit.repository.log import Log

_FRAME = struct.Struct("<64s32s32sQ")  # signature, public key, and what is signed:
_CLAIM = struct.Struct("<32sQ")  # digest and length


class WalSignature(NamedTuple):
    """What a signed WAL object promises of its content.

    Attributes:
        digest: SHA-256 of it.
        length: in bytes.
        signer: the public key.
    """

    digest: bytes
    length: int
    signer: bytes

    def fits(self, content: Buffer) -> bool:
        """Say whether this is the content that was signed."""
        return self.length == len(content) and self.digest == _digest(content)


class WalTrust(NamedTuple):
    """Whose signatures count on WAL files, and which files need none.

    Attributes:
        trusted: public keys; where none is known, none is verified.
        since: by timeline the name of the first segment that must be signed; of a
            timeline that is not there all must be. None: nothing must be.
    """

    trusted: Collection[bytes] = ()
    since: Mapping[int, str] | None = None

    def demands(self, file: WalFileName) -> bool:
        """Say whether a file that is not signed must be refused."""
        if self.since is None:
            return False
        first = self.since.get(file.timeline)
        if first is None:
            return True
        # The names of a timeline's segments ascend with their positions.
        return file.kind is not WalFileKind.HISTORY and file.name[:24] >= first


def wal_trust(
    log: Log, pinned: Collection[bytes], *, accept_unsigned: bool = False
) -> WalTrust:
    """Return what pins and a log say of the signatures of WAL.

    Args:
        log: is read if it was not yet.
        pinned: public keys; where there are none, the log's signers count.
        accept_unsigned: whatever the log demands.
    """
    state = log.state if log.state.opened else log.read()
    since = None if accept_unsigned else state.wal_signed
    return WalTrust(pinned or public_keys(state.wal_signers), since)


class WalSigning(NamedTuple):
    """How WAL is signed, and what is believed of it.

    Attributes:
        signer: reads the signing key of WAL; None: what is archived is not signed.
        trust: asked whenever a file is opened.
    """

    signer: Callable[[], Signer] | None = None
    trust: Callable[[], WalTrust] = WalTrust


def sign_wal(signer: Signer, lineage: bytes, name: str, content: Buffer) -> bytes:
    """Return the last frame of the object `name` that holds a WAL file."""
    claim = _CLAIM.pack(_digest(content), len(content))
    return signer.sign(_signed(lineage, name, claim)) + signer.public + claim


def read_signature(
    lineage: bytes, name: str, frame: bytes, trusted: Collection[bytes]
) -> WalSignature:
    """Read the last frame of a signed object.

    Args:
        trusted: public keys; if there are none, the signature is not verified.

    Raises:
        Corrupt: none of them has signed it.
    """
    signature, public, digest, length = _FRAME.unpack(frame)
    signed = _signed(lineage, name, frame[-_CLAIM.size :])
    if trusted and not verify(public, signature, signed, trusted):
        raise Corrupt(
            f"object {name} is not signed by a key of WAL that the policy trusts",
            hint=foreign_signer(format_public(public), "keys.trusted_wal"),
        )
    return WalSignature(digest, length, public)


def _signed(lineage: bytes, name: str, claim: bytes) -> bytes:
    # Of another domain than log entries: a key that signs one can't sign the other.
    return length_prefixed("drkit/1/wal", lineage, name) + claim


def _digest(content: Buffer) -> bytes:
    return hashlib.sha256(content).digest()
