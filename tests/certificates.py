"""A private certificate authority of a test, and certificates for 127.0.0.1 and localhost that it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
_START = datetime.datetime(2020, 1, 1)
_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Makes certificates; `ca_file` is what its clients trust."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(self._signed("a private CA", self._key, is_ca=True).public_bytes(_PEM))

    def certificate(self, subject: str = "gateway", password: bytes | None = None) -> tuple[bytes, bytes]:
        """A new certificate and its private key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        secrecy = (
            serialization.NoEncryption()
            if password is None
            else serialization.BestAvailableEncryption(password)
        )
        private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, secrecy)
        return self._signed(subject, key, is_ca=False).public_bytes(_PEM), private

    def _signed(self, subject: str, key: ec.EllipticCurvePrivateKey, *, is_ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("a private CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_START)
            .not_valid_after(_START.replace(year=2120))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        # Since Python 3.13 clients ask for what the standard asks for: who signed it, and what a CA's key is for.
        if is_ca:
            builder = builder.add_extension(_CA_USAGE, critical=True)
            builder = builder.add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        else:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(issuer, critical=False)
            names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
