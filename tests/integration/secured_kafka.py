"""A broker with listeners as clusters have them, certificates made for it, and an authorizer that refuses what is not granted.

Its plain listener is for the test alone, whose nameless user may do everything.
"""

from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from paperlog.up.kafka import EmbeddedKafka
from paperlog.up.processes import free_port

PASSWORD = "hidden-word-of-this-test"
KEY_PASSWORD = "hidden-key-word-of-this-test"
SERVICES = ("ingest", "embedder", "graph-writer")
_MECHANISMS = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class Certificates:
    """Of one authority that brokers and clients trust, and of another that nobody trusts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._authority = trustme.CA()
        self.authority = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.authority)
        self.stranger = folder / "stranger.pem"
        trustme.CA().cert_pem.write_to_path(self.stranger)
        self.broker = self.issue("broker", "localhost", "127.0.0.1")
        self.elsewhere = self.issue("elsewhere", "kafka.example.org")

    def issue(self, name: str, *names: str, password: str = "", authority: trustme.CA | None = None) -> Path:
        """Certificate, chain and key in one file, the key as Java reads it."""
        made = (authority or self._authority).issue_cert(
            *(names or (f"{name}.example.org",)), common_name=name
        )
        key = load_pem_private_key(made.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM,
            PrivateFormat.PKCS8,
            BestAvailableEncryption(password.encode()) if password else NoEncryption(),
        )
        path = self._folder / f"{name}.pem"
        path.write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems) + key)
        return path

    def issue_untrusted(self, name: str) -> Path:
        return self.issue(name, authority=trustme.CA())


class SecuredKafka(EmbeddedKafka):
    """Listeners: SCRAM and MUTUAL as clusters have them, CLEAR with passwords but no TLS, ELSEWHERE with a certificate for
    another name, LOST whose brokers name an address that nobody knows.
    """

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        self._certificates = certificates
        super().__init__(folder)

    def _choose_ports(self) -> None:
        super()._choose_ports()
        names = ("SCRAM", "MUTUAL", "CLEAR", "ELSEWHERE", "LOST")
        self._listeners: dict[str, int] = {name: free_port() for name in names}

    def address(self, listener: str) -> str:
        return f"localhost:{self._listeners[listener]}"

    def _settings(self, log_dir: Path) -> dict[str, object]:
        settings = super()._settings(log_dir)
        more = {name: f"{name}://127.0.0.1:{port}" for name, port in self._listeners.items()}
        told = {name: f"{name}://{self.address(name)}" for name in self._listeners}
        told["LOST"] = told["LOST"].replace("localhost", "kafka.invalid")
        protocols = {
            "SCRAM": "SASL_SSL",
            "MUTUAL": "SSL",
            "CLEAR": "SASL_PLAINTEXT",
            "ELSEWHERE": "SSL",
            "LOST": "PLAINTEXT",
        }
        users = " ".join(f'user_{one}="{PASSWORD}"' for one in SERVICES)
        pem = {"ssl.keystore.type": "PEM", "ssl.truststore.type": "PEM"}
        settings |= {
            "listeners": ",".join([str(settings["listeners"]), *more.values()]),
            "advertised.listeners": ",".join([str(settings["advertised.listeners"]), *told.values()]),
            "listener.security.protocol.map": ",".join(
                [
                    str(settings["listener.security.protocol.map"]),
                    *(f"{k}:{v}" for k, v in protocols.items()),
                ]
            ),
            **pem,
            "ssl.keystore.location": self._certificates.broker,
            "ssl.truststore.location": self._certificates.authority,
            **{f"listener.name.elsewhere.{name}": value for name, value in pem.items()},
            "listener.name.elsewhere.ssl.keystore.location": self._certificates.elsewhere,
            "listener.name.mutual.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+),.*$/$1/",
            "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.scram.scram-sha-256.sasl.jaas.config": _SCRAM,
            "listener.name.scram.scram-sha-512.sasl.jaas.config": _SCRAM,
            "listener.name.clear.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.clear.plain.sasl.jaas.config": f"{_PLAIN} {users};",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "auto.create.topics.enable": "true",  # as Kafka's default is: nothing of ours may be made by it
        }
        return settings

    def add_users(self, mechanism: str = "SCRAM-SHA-512", *, password: str = PASSWORD) -> None:
        """With the names of the services."""
        how = ScramCredentialInfo(_MECHANISMS[mechanism], 4096)
        made = [UserScramCredentialUpsertion(one, how, password.encode()) for one in SERVICES]
        admin = self.admin()  # it ends what is under way when nobody holds it
        for done in admin.alter_user_scram_credentials(made).values():
            done.result(30)

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap})
