"""The embedded server's secrets: made once, readable by the owner only.

The server's own doors stand open unless they are closed one by one: JWT keys close the filer and the volumes to HTTP
requests, a certificate that only this folder knows closes the gRPC services (which would list, copy and delete
everything for any local user), and S3 has its access key.
"""

import datetime
import json
import os
import secrets
from pathlib import Path

CREDENTIALS_FILE = "credentials.json"
SECURITY_FILE = "security/security.toml"
_CERTIFICATE_FILE, _KEY_FILE = "security/certificate.pem", "security/key.pem"
_JWT_SECTIONS = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_GRPC_PARTIES = ("master", "volume", "filer", "s3", "admin", "worker", "client")
_VALID_DAYS = 36_500


def write_secrets(folder: Path) -> None:
    """Writes what is missing of the credentials and of the server's security settings below `folder`.

    The settings name files by their whole paths, so those of a folder that was moved are written anew.
    """
    if not (folder / CREDENTIALS_FILE).exists():
        credentials = {"key": f"graftline{secrets.token_hex(6)}", "secret": secrets.token_urlsafe(32)}
        _write_secret(folder / CREDENTIALS_FILE, json.dumps(credentials))
    settings = folder / SECURITY_FILE
    if not settings.exists():
        certificate, key = _self_signed()
        _write_secret(folder / _CERTIFICATE_FILE, certificate)
        _write_secret(folder / _KEY_FILE, key)
    if not settings.exists() or _quoted(folder / _CERTIFICATE_FILE) not in settings.read_text(encoding="utf-8"):
        _write_secret(settings, _security(folder))


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)  # TOML has other escapes for what is beyond 16 bits


def _security(folder: Path) -> str:
    certificate, key = _quoted(folder / _CERTIFICATE_FILE), _quoted(folder / _KEY_FILE)
    sections = [f'[{name}]\nkey = "{secrets.token_urlsafe(32)}"' for name in _JWT_SECTIONS]
    sections += [f"[grpc]\nca = {certificate}"]
    sections += [f"[grpc.{party}]\ncert = {certificate}\nkey = {key}" for party in _GRPC_PARTIES]
    return "\n".join(sections) + "\n"


def _self_signed() -> tuple[str, str]:
    """Returns a certificate that is its own authority, and its private key, both as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "graftline embedded store")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _write_secret(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.rename(path)
