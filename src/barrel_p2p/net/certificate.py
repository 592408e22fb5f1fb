"""The TLS certificate of a node: self-signed, made on first start, in upstream's format.

Nobody looks at the name or the issuer in it. What counts is that its key signs the TLS handshake and that its
hash, the channel binding, is part of every Ed25519 signature of the authentication that follows.

``<directory>/node.crt`` (PEM, mode 0644) and ``node.key`` (PEM ``EC PRIVATE KEY``, mode 0600). Files of your
own are used as they are: an EC or RSA key, and exactly one certificate.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from barrel_p2p.disk.files import (
    make_backup_directory,
    make_private_directory,
    require_private,
    unusable,
    write_atomic,
)
from barrel_p2p.errors import ConfigError

COMMON_NAME = "barrel_p2p-node"  # upstream's; the node's own name would tell it to every scanner
ORGANIZATION = "Barrel P2P"
LIFETIME = datetime.timedelta(days=365)  # upstream's
BACKDATE = datetime.timedelta(seconds=300)  # upstream's; clocks differ
_MARK = "rotating"  # a file that stands there while the pair is replaced
MAX_FILE = 1 << 20  # bytes; a bound for files that are not what they should be

_log = logging.getLogger("barrel_p2p.certificate")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the QUIC endpoint needs. ``binding`` is the channel binding of every connection that we accept
    with it.
    """

    certificate_der: bytes
    private_key_der: bytes = field(repr=False)  # PKCS#8
    binding: bytes  # SHA-256 of certificate_der
    not_after: datetime.datetime


def load_or_create(directory: Path | str) -> Certificate:
    """Read the certificate of ``directory``, or make one if there is none at all.

    One that we made and that has expired is replaced, with a warning and a copy in ``backups/``; one of your
    own is used as it is, with a warning.

    Raises:
        ConfigError: the directory can't be used, or what stands there is no whole and private pair. Nothing
        was replaced.
    """
    directory = Path(directory)
    make_private_directory(directory)
    if (directory / _MARK).exists():
        _log.warning("making the certificate in %s that a crash kept from being made", directory)
        return rotate(directory)
    cert_pem, key_pem = _read(directory / "node.crt"), _read(directory / "node.key")
    if cert_pem is None and key_pem is None:
        return _create(directory)
    if cert_pem is None or key_pem is None:
        there, gone = ("node.key", "node.crt") if cert_pem is None else ("node.crt", "node.key")
        raise ConfigError(
            f"{directory / there} is there, but {directory / gone} is missing. Restore it from a backup, or "
            f"delete {there}: "
            "a new pair is then made, which costs nothing (peers pin the Ed25519 key, not this one)"
        )
    require_private(directory / "node.key")
    certificate, key = _parse(directory, cert_pem, key_pem)
    if certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        if _is_ours(certificate):
            _log.warning("%s expired on %s: making a new one", directory / "node.crt", certificate.not_valid_after_utc)
            return rotate(directory)
        _log.warning(
            "%s expired on %s; nodes of barrel_p2p don't mind",
            directory / "node.crt",
            certificate.not_valid_after_utc,
        )
    return _loaded(certificate, key)


def rotate(directory: Path | str) -> Certificate:
    """Make a new pair; the old one goes to ``backups/<time>/``. A crash in between is made good by ``load_or_create``.

    Raises:
        ConfigError: the disk refused.
    """
    directory = Path(directory)
    make_private_directory(directory)
    cert_pem, key_pem = _read(directory / "node.crt"), _read(directory / "node.key")
    if cert_pem is not None and key_pem is not None and not (directory / _MARK).exists():
        backup = make_backup_directory(directory)
        _store(backup / "node.crt", cert_pem, 0o644)
        _store(backup / "node.key", key_pem, 0o600)
    _store(directory / _MARK, b"", 0o600)  # from here on the two files need not fit; nobody would miss them
    for name in ("node.key", "node.crt"):  # never leave an old half beside a new one
        _remove(directory / name)
    made = _create(directory)
    _remove(directory / _MARK)
    return made


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unusable(path, "replace", error) from None


def _create(directory: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    _store(directory / "node.key", key_pem, 0o600)
    _store(directory / "node.crt", certificate.public_bytes(Encoding.PEM), 0o644)
    return _loaded(certificate, key)


def _parse(directory: Path, cert_pem: bytes, key_pem: bytes) -> tuple[x509.Certificate, PrivateKey]:
    cert_path, key_path = directory / "node.crt", directory / "node.key"
    remedy = f"Restore it from a backup, or delete {cert_path} and {key_path}: a new pair is then made"
    try:
        certificates = x509.load_pem_x509_certificates(cert_pem)
    except ValueError:
        raise ConfigError(f"{cert_path} is no whole PEM certificate. {remedy}") from None
    if len(certificates) != 1:
        raise ConfigError(f"{cert_path} holds {len(certificates)} certificates; exactly one must stand there")
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        raise ConfigError(f"{key_path} is no whole PEM private key without a password. {remedy}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError(f"{key_path} is neither an EC nor an RSA key, which is all that Erlang peers take. {remedy}")
    if _public(certificates[0]) != key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise ConfigError(f"{key_path} is not the key of {cert_path}. {remedy}")
    return certificates[0], key


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_ours(certificate: x509.Certificate) -> bool:
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return certificate.subject == certificate.issuer and [o.value for o in organizations] == [ORGANIZATION]


def _loaded(certificate: x509.Certificate, key: PrivateKey) -> Certificate:
    der = certificate.public_bytes(Encoding.DER)
    return Certificate(
        certificate_der=der,
        private_key_der=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        binding=hashlib.sha256(der).digest(),
        not_after=certificate.not_valid_after_utc,
    )


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(path, "read", error) from None


def _store(path: Path, data: bytes, mode: int) -> None:
    try:
        write_atomic(path, data, mode=mode)
    except OSError as error:
        raise unusable(path, "write", error) from None


__all__ = ["Certificate", "load_or_create", "rotate"]
