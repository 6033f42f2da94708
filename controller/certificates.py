"""Certificates for a broker of one's own: an authority that signs nothing else, and the server's certificate.

Made with the ``openssl`` command, once per broker and again when the certificate runs out; nothing of a run
needs it.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

AUTHORITY_DAYS = 3650
SERVER_DAYS = 730
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*")
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")
_CONFIG = """[req]
distinguished_name = subject
x509_extensions = authority
prompt = no
[subject]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


class CertificateError(Exception):
    """A certificate could not be made; says why."""


def make_authority(folder: Path, name: str) -> None:
    """Write ``ca.key`` and ``ca.crt``, valid for ten years. Raises CertificateError."""
    key, certificate = folder / "ca.key", folder / "ca.crt"
    lasting = ["req", "-x509", *_CURVE, "-days", str(AUTHORITY_DAYS)]
    _openssl([*lasting, "-keyout", key, "-out", certificate], name, ["localhost"])


def make_server(folder: Path, names: Sequence[str], *, days: int = SERVER_DAYS) -> None:
    """Write ``server.key`` and ``server.crt``, signed with the authority in the same folder.

    Both are replaced only when both are complete.

    Args:
        folder: holds ``ca.key`` and ``ca.crt``.
        names: host names and addresses under which clients reach the broker.
        days: for how long it is valid.

    Raises:
        CertificateError: a name is none, the authority's key is not here, or openssl refuses.
    """
    if not (folder / "ca.key").is_file():
        raise CertificateError(
            f"{folder / 'ca.key'} is not here: the key that signs this broker's certificates"
        )
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        new = Path(scratch)
        _openssl(["req", "-new", *_CURVE, "-keyout", new / "key", "-out", new / "request"], names[0], names)
        signing: list[str | Path] = ["-CA", folder / "ca.crt", "-CAkey", folder / "ca.key"]
        signing += ["-set_serial", f"0x{secrets.token_hex(16)}", "-days", str(days), "-sha256"]
        request: list[str | Path] = ["x509", "-req", "-in", new / "request", "-out", new / "certificate"]
        _openssl([*request, *signing, "-extensions", "server"], names[0], names, config="-extfile")
        (new / "key").replace(folder / "server.key")
        (new / "certificate").replace(folder / "server.crt")


def names_in(certificate: Path) -> list[str]:
    """Return the names and addresses for which a certificate stands. Raises CertificateError."""
    told = _openssl(["x509", "-in", certificate, "-noout", "-ext", "subjectAltName"], "", (), config="")
    return re.findall(r"(?:DNS|IP Address):([^,\s]+)", told)


def alternative(name: str) -> str:
    """Return a name as an entry of ``subjectAltName``. Raises CertificateError if it is no name."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        if len(name) > 253 or not _HOST.fullmatch(name):
            raise CertificateError(f"{name!r} is neither a host name nor an address") from None
        return f"DNS:{name}"


def _openssl(
    arguments: Sequence[str | Path], name: str, names: Sequence[str], *, config: str = "-config"
) -> str:
    """Run openssl with our configuration and nobody else's; files are made for their owner only."""
    program = shutil.which("openssl")
    if program is None:
        raise CertificateError("the command openssl is not installed: sudo apt-get install openssl")
    entries = ", ".join(alternative(one) for one in names) or "DNS:localhost"
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as file:
        file.write(_CONFIG.format(name=name or "operando", names=entries))
        file.flush()
        command = [program, *map(str, arguments), *([config, file.name] if config else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, umask=0o077)
    if done.returncode:
        raise CertificateError(f"openssl {arguments[0]}: {done.stderr.strip() or 'failed'}")
    return done.stdout
