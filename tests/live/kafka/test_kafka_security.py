"""A broker with authentication, with and without TLS: configured credentials work, and wrong ones are reported."""

import shutil
import subprocess

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from pipeline.errors import ConfigError, LogError
from pipeline.logs.kafka.kafka_log import KafkaLog
from pipeline.logs.kafka.settings import KafkaSettings
from tests.live.everything import everything
from tests.live.own_broker import OwnBroker
from tests.support.command.command_line import call, feed, make_events, make_shop, samples_of, springtide
from tests.support.command.ports import free_port_range

USER, PASSWORD, WRONG = "springtide", "open sesame", "open barley"
JAAS = "org.apache.kafka.common.security.{} required {};"
SCRAM = "SCRAM-SHA-512"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A broker: its first port needs no authentication, its third a password, its fourth TLS and a password."""
    folder = tmp_path_factory.mktemp("guarded")
    broker = OwnBroker(folder, free_port_range(4))
    names = ("PLAINTEXT", "CONTROLLER", "SASL_PLAINTEXT", "SASL_SSL")
    at = {name: f"{name}://127.0.0.1:{broker.port + number}" for number, name in enumerate(names)}
    plain = JAAS.format("plain.PlainLoginModule", f'user_{USER}="{PASSWORD}"')
    more = {
        "listeners": ",".join(at.values()),
        "advertised.listeners": ",".join(address for name, address in at.items() if name != "CONTROLLER"),
        "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in names).replace(
            "CONTROLLER:CONTROLLER", "CONTROLLER:PLAINTEXT"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": f"PLAIN,{SCRAM}",
        **make_certificate(folder),
    }
    for name in ("sasl_plaintext", "sasl_ssl"):
        more[f"listener.name.{name}.plain.sasl.jaas.config"] = plain
        more[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = JAAS.format("scram.ScramLoginModule", "")
    try:
        broker.start(more)
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, PASSWORD)])
        admin.close()
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder)


def make_certificate(folder):
    """Write a self-signed certificate to `ca.pem`; returns the settings of the broker for it."""
    store, about = folder / "keys.p12", ["-storetype", "PKCS12", "-storepass", PASSWORD, "-alias", "broker"]
    make = ["-genkeypair", "-keyalg", "RSA", "-dname", "CN=broker", "-ext", "san=ip:127.0.0.1", "-ext", "bc=ca:true"]
    for command in (make, ["-exportcert", "-rfc", "-file", folder / "ca.pem"]):
        subprocess.run(["keytool", *command, "-keystore", store, *about], check=True, capture_output=True)
    return {"ssl.keystore.type": "PKCS12", "ssl.keystore.location": store, "ssl.keystore.password": PASSWORD}


@pytest.fixture(params=["PLAIN", SCRAM, "TLS and SCRAM"])
def endpoint(request, guarded):
    """Bootstrap address and security settings, without the password."""
    security = {"sasl_mechanism": "PLAIN" if request.param == "PLAIN" else SCRAM, "sasl_plain_username": USER}
    if request.param.startswith("TLS"):
        security |= {"security_protocol": "SASL_SSL", "ssl_cafile": str(guarded.folder / "ca.pem")}
        return f"127.0.0.1:{guarded.port + 3}", security
    return f"127.0.0.1:{guarded.port + 2}", {**security, "security_protocol": "SASL_PLAINTEXT"}


def opened(endpoint, clock, prefix, retry_timeout_s=20.0, **security):
    bootstrap, given = endpoint
    return KafkaLog(
        KafkaSettings(bootstrap, f"{prefix}.", {**given, **security}, retry_timeout_s=retry_timeout_s), clock
    )


def test_a_client_with_the_password_appends_and_reads(endpoint, clock, tmp_path):
    log = opened(endpoint, clock, tmp_path.name, sasl_plain_password=PASSWORD)
    log.create_topic("t", 1)
    log.append("t", 0, [b"a"])
    log.append("t", 0, [b"b"], fence=log.acquire_fence("t", 0))
    assert [r.value for r in everything(log)] == [b"a", b"b"]
    assert [r.value for r in log.read_run("t", 0, 0)] == [b"a", b"b"]
    log.close()


def test_a_wrong_password_is_named_at_once(endpoint, clock, tmp_path):
    began_s = clock.monotonic_s()
    with pytest.raises(
        ConfigError, match=rf"kafka at {endpoint[0]}: authentication failed: .*hint: see logs\.security"
    ):
        opened(endpoint, clock, tmp_path.name, sasl_plain_password=WRONG)
    assert clock.monotonic_s() - began_s < 10


def test_an_untrusted_certificate_is_named(guarded, clock, tmp_path):
    endpoint = f"127.0.0.1:{guarded.port + 3}", {"security_protocol": "SSL"}
    with pytest.raises(LogError, match=r"could not connect, retried for .*certificate verify failed"):
        opened(endpoint, clock, tmp_path.name, retry_timeout_s=2.0)


def test_a_shop_authenticates_with_the_password_in_its_file(tmp_path, guarded):
    engine = f'[logs]\nengine = "kafka"\nbootstrap = "127.0.0.1:{guarded.port + 2}"\nretry_timeout_s = 20\n'
    shop = make_shop(tmp_path / "shop", {"[logs]\n": engine})
    with (shop / "springtide.toml").open("a") as file:
        file.write('\n[logs.security]\nsecurity_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "SCRAM-SHA-512"\n')
        file.write(f'sasl_plain_username = "{USER}"\nsasl_plain_password = {{ file = "password" }}\n')
    (shop / "password").write_text(f"{PASSWORD}\n")
    feed(shop, make_events(seed=1, rows=100))
    springtide(shop, "run", "samples", "--until-end")
    assert len(samples_of(shop)) >= 100
    (shop / "password").write_text(WRONG)
    refused = call("status", "--project", shop)
    assert "authentication failed" in refused.err, refused.err
    assert refused.code == call("status", "--project", tmp_path).code
    assert WRONG not in refused.err + refused.out
