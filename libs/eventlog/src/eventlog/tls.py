"""Certificates of the brokers' authorities and of our own, from PEM files (docs/decisions/0012).

Whatever is wrong with a file is a ValueError that says what to do; neither a key nor its password is ever in it.
"""

import ssl
from pathlib import Path

from pydantic import SecretStr

_AS_PEM = (
    "Java's stores become PEM by `keytool -importkeystore … -deststoretype pkcs12` and `openssl pkcs12 -in …`"
)


def authorities(path: Path | None) -> ssl.SSLContext:
    """What checks the brokers' certificates and their names, by the authorities in the file or by the machine's own."""
    try:
        return ssl.create_default_context(cafile=None if path is None else str(path))
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificate in PEM; {_AS_PEM}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def own_certificate(context: ssl.SSLContext, path: Path, *, key: Path | None, password: SecretStr) -> None:
    """Our certificate, for a broker that asks who we are; the key stands in the same file unless it is given."""
    secret = password.get_secret_value()
    try:
        # A password must be given, or OpenSSL asks for it on the terminal.
        context.load_cert_chain(str(path), None if key is None else str(key), password=lambda: secret)
    except ssl.SSLError as error:
        raise ValueError(_said_of(error, path, key, has_password=bool(secret))) from None
    except OSError as error:
        raise ValueError(f"{path} or its key cannot be read: {error.strerror}") from None


def _said_of(error: ssl.SSLError, path: Path, key: Path | None, *, has_password: bool) -> str:
    where = path if key is None else key
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the private key in {where} is not that of the first certificate in {path}"
    if "ENCRYPTED" in where.read_text(encoding="latin-1"):
        if has_password:
            return f"KAFKA_SSL_KEY_PASSWORD does not open the private key in {where}"
        return f"the private key in {where} is encrypted: set KAFKA_SSL_KEY_PASSWORD or KAFKA_SSL_KEY_PASSWORD_FILE"
    apart = " (or set KAFKA_SSL_KEYSTORE_KEY_FILE)" if key is None else ""
    return f"{path} and its key are not a certificate and a private key in PEM{apart}; {_AS_PEM}"
