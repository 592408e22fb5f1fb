"""The TLS certificate: made once, upstream's shape, never half replaced."""

from __future__ import annotations

import datetime
import hashlib
import logging
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID

from barrel_p2p.errors import ConfigError
from barrel_p2p.net import certificate


def write_pair(directory: Path, organization: str, *, days: int) -> None:
    """A pair with a chosen maker and end."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    (directory / "node.crt").write_bytes(cert.public_bytes(Encoding.PEM))
    (directory / "node.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    (directory / "node.key").chmod(0o600)


def test_a_certificate_is_made_once(tmp_path: Path) -> None:
    first = certificate.load_or_create(tmp_path / "quic")
    assert certificate.load_or_create(tmp_path / "quic") == first
    assert first.binding == hashlib.sha256(first.certificate_der).digest()
    assert stat.S_IMODE((tmp_path / "quic/node.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "quic/node.crt").stat().st_mode) == 0o644
    assert b"BEGIN EC PRIVATE KEY" in (tmp_path / "quic/node.key").read_bytes()
    assert "private_key_der" not in repr(first)


def test_it_has_upstreams_shape(tmp_path: Path) -> None:
    made = certificate.load_or_create(tmp_path)
    cert = x509.load_der_x509_certificate(made.certificate_der)
    assert cert.subject == cert.issuer
    assert [a.value for a in cert.subject] == ["barrel_p2p-node", "Barrel P2P"]
    key = load_der_private_key(made.private_key_der, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    assert isinstance(cert.signature_hash_algorithm, hashes.SHA256)
    life = cert.not_valid_after_utc - cert.not_valid_before_utc
    assert life == datetime.timedelta(days=365, seconds=300)
    assert [extension.critical for extension in cert.extensions] == [True, True, False]
    cert.verify_directly_issued_by(cert)


@pytest.mark.parametrize("name", ["node.crt", "node.key"])
def test_half_a_pair_is_named_and_kept(tmp_path: Path, name: str) -> None:
    certificate.load_or_create(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        certificate.load_or_create(tmp_path)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["node.crt", "node.key"])
@pytest.mark.parametrize("keep", [0, 60, -10])
def test_a_file_cut_short_is_named(tmp_path: Path, name: str, keep: int) -> None:
    certificate.load_or_create(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:keep])
    with pytest.raises(ConfigError, match=name):
        certificate.load_or_create(tmp_path)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    certificate.load_or_create(tmp_path / "a")
    certificate.load_or_create(tmp_path / "b")
    (tmp_path / "a/node.key").write_bytes((tmp_path / "b/node.key").read_bytes())
    with pytest.raises(ConfigError, match="is not the key of"):
        certificate.load_or_create(tmp_path / "a")


def test_a_chain_is_refused(tmp_path: Path) -> None:
    certificate.load_or_create(tmp_path)
    path = tmp_path / "node.crt"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ConfigError, match="2 certificates"):
        certificate.load_or_create(tmp_path)


def test_a_kind_of_key_that_erlang_cant_check_is_refused(tmp_path: Path) -> None:
    certificate.load_or_create(tmp_path)
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "node.key").write_bytes(pem)
    with pytest.raises(ConfigError, match="EC nor an RSA"):
        certificate.load_or_create(tmp_path)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    certificate.load_or_create(tmp_path)
    (tmp_path / "node.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        certificate.load_or_create(tmp_path)


def test_our_own_expired_certificate_is_replaced_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pair(tmp_path, "Barrel P2P", days=-1)
    old = (tmp_path / "node.crt").read_bytes()
    with caplog.at_level(logging.WARNING):
        new = certificate.load_or_create(tmp_path)
    assert "expired" in caplog.text
    assert new.not_after > datetime.datetime.now(datetime.UTC)
    assert [path.read_bytes() for path in (tmp_path / "backups").glob("*/node.crt")] == [old]


def test_an_expired_certificate_of_others_is_used_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pair(tmp_path, "Example Corp", days=-1)
    with caplog.at_level(logging.WARNING):
        loaded = certificate.load_or_create(tmp_path)
    assert "expired" in caplog.text and loaded.not_after < datetime.datetime.now(datetime.UTC)


def test_rotation_makes_another_binding(tmp_path: Path) -> None:
    old = certificate.load_or_create(tmp_path)
    new = certificate.rotate(tmp_path)
    assert new.binding != old.binding and certificate.load_or_create(tmp_path) == new
