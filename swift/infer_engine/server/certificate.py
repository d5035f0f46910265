"""A self-signed certificate for HTTPS on this machine, made once and kept."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from pathlib import Path

from swift.core.errors import MissingDependencyError

DAYS = 365
SOON = 7
"""Days before its end from which a certificate is made anew."""


def self_signed() -> tuple[str, str]:
    """(key file, certificate file) for localhost, 127.0.0.1 and the name of this machine: those made before, or new ones."""
    folder = Path(os.environ.get('SWIFT_CACHE') or '~/.cache/swift').expanduser() / 'ssl'
    key, certificate = folder / 'key.pem', folder / 'certificate.pem'
    if not (key.is_file() and certificate.is_file() and _lasts(certificate)):
        _make(key, certificate)
    return str(key), str(certificate)


def _lasts(certificate: Path) -> bool:
    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except ValueError:
        return False
    return ends - datetime.datetime.now(datetime.timezone.utc) > datetime.timedelta(days=SOON)


def _make(key: Path, certificate: Path) -> None:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError:
        raise MissingDependencyError('cryptography', '--enable_ssl without --ssl_certfile', 'ssl') from None
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'localhost')])
    names = [x509.DNSName(host) for host in dict.fromkeys(('localhost', socket.gethostname()))]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ('127.0.0.1', '::1')]
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    key.parent.mkdir(parents=True, exist_ok=True)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'wb') as file:
        file.write(pem)
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
