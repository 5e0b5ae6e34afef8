"""Why the brokers cannot be reached, in words that say what to do: aiokafka keeps the reason to its own log.

Asks once more, by hand, up to the first answer that needs rights: who listens, who they say they are, whether we may
come in; then the same of the addresses that the brokers give themselves. Decides nothing and raises nothing.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import errors
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

ASKED_S_MAX = 5.0
_ADDRESSES_MAX = 5
_NAME_MISMATCH = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_EXPIRED = 10
Address = tuple[str, int]


async def why_refused(connection: Mapping[str, Any]) -> str:
    """What each address has to say against us; empty where they answer. One that answers makes up for the others given."""
    given = [_address(one) for one in connection["bootstrap_servers"]][:_ADDRESSES_MAX]
    answers = await asyncio.gather(*(_asked(connection, one) for one in given))
    brokers = [one for one in answers if not isinstance(one, str)]
    if not brokers:
        return _joined(answers)
    told = set[Address]().union(*brokers)
    others = sorted(told - set(given))[:_ADDRESSES_MAX]
    why = _joined(await asyncio.gather(*(_asked(connection, one) for one in others)))
    return f"{why} (the brokers name this address themselves)" if why else ""


def _joined(answers: Iterable[set[Address] | str]) -> str:
    return "; ".join(one for one in answers if isinstance(one, str))


def _address(server: str) -> Address:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


async def _asked(connection: Mapping[str, Any], address: Address) -> set[Address] | str:
    """The addresses of the brokers, or why there was no answer."""
    how = {name: value for name, value in connection.items() if name != "bootstrap_servers"}
    try:
        async with asyncio.timeout(ASKED_S_MAX):
            client = await create_conn(*address, **how)
            try:
                answer = await client.send(MetadataRequest([]))
            finally:
                client.close()
    except Exception as error:  # noqa: BLE001 - whatever it was, it is only told
        return _said(error, connection, f"{address[0]}:{address[1]}")
    return {(host, port) for _, host, port, *_ in answer.brokers}


def _said(error: BaseException, connection: Mapping[str, Any], at: str) -> str:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and len(causes) < 10:
        causes.append(cause)
    user, mechanism = connection.get("sasl_plain_username"), connection.get("sasl_mechanism")
    protocol = connection["security_protocol"]
    for one in causes:
        match one:
            case errors.SaslAuthenticationFailed():
                return (
                    f"{at} does not let the user {user} in by {mechanism}: look at KAFKA_SASL_USERNAME and "
                    "KAFKA_SASL_PASSWORD, and whether the user has a password for this mechanism"
                )
            case errors.UnsupportedSaslMechanismError():
                return f"{at} does not take {mechanism}: set KAFKA_SASL_MECHANISM to what the listener offers"
            case errors.IllegalSaslStateError():
                return f"{at} is a listener without SASL: look at KAFKA_SECURITY_PROTOCOL ({protocol}) and the port"
            case ssl.SSLCertVerificationError():
                return _said_of_certificate(one, at)
            case ssl.SSLError() if _is_about_our_certificate(one):
                return (
                    f"{at} wants a certificate of ours that it trusts ({_words(one)}): set "
                    "KAFKA_SSL_KEYSTORE_LOCATION to one that an authority in the brokers' truststore has signed"
                )
            case TimeoutError() if len(causes) == 1:
                return f"{at} does not answer within {ASKED_S_MAX:.0f} s"
            case _:
                pass
    is_closed = isinstance(error, ssl.SSLError | ConnectionResetError | ConnectionAbortedError)
    if isinstance(error, OSError) and not is_closed:
        return f"{at} cannot be reached: {error.strerror or error}"
    return (
        f"{at} closes the connection without a word: look at KAFKA_SECURITY_PROTOCOL ({protocol}) and the port, "
        "each listener of a broker speaks one protocol"
    )


def _said_of_certificate(error: ssl.SSLCertVerificationError, at: str) -> str:
    if error.verify_code in _NAME_MISMATCH:
        return (
            f"the certificate of {at} is for another name ({error.verify_message}): use a name that it holds in "
            "KAFKA_BOOTSTRAP_SERVERS and the brokers' advertised.listeners, or have it issued for this one"
        )
    if error.verify_code == _EXPIRED:
        return f"the certificate of {at} has expired: renew it on the broker"
    return (
        f"the certificate of {at} is not trusted ({error.verify_message}): set KAFKA_SSL_TRUSTSTORE_LOCATION to a "
        "PEM file with the certificate of the authority that has signed it"
    )


def _is_about_our_certificate(error: ssl.SSLError) -> bool:
    """What a broker says of a client's certificate comes as an alert."""
    said = (error.reason or "").upper()
    return "ALERT" in said and ("CERTIFICATE" in said or "UNKNOWN_CA" in said or "HANDSHAKE_FAILURE" in said)


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "").lower().replace("_", " ")
