"""The peer itself, by the real client package: that it does and refuses what XenAPI does.

What a test of the driver can prove is no more than what stands here.
"""

from __future__ import annotations

import ssl
import xmlrpc.client
from collections.abc import Iterator
from typing import Any

import pytest
from XenAPI import Failure, Session

from tests.peers.xapi import Peer, xapi

VIF = {"device": "0", "MAC": "", "MTU": "1500", "other_config": {}, "qos_algorithm_type": "",
       "qos_algorithm_params": {}}  # fmt: skip


@pytest.fixture
def peer() -> Iterator[Peer]:
    with xapi() as found:
        yield found


@pytest.fixture
def api(peer: Peer) -> Iterator[Any]:
    session = peer.connect()
    yield session.xenapi
    session.xenapi.session.logout()
    assert not peer.sessions()


def refused(call: Any, *args: Any) -> list[str]:
    with pytest.raises(Failure) as e:
        call(*args)
    return list(e.value.details)


def test_who_may_come_in(peer: Peer) -> None:
    session = Session(peer.uri, transport=peer.transport())
    said = refused(session.login_with_password, "root", "wrong")
    assert said[:2] == ["SESSION_AUTHENTICATION_FAILED", "root"]
    with pytest.raises(ssl.SSLError):
        Session(peer.uri).login_with_password(peer.user, peer.password)
    assert not peer.sessions()


def test_a_slave_names_its_master() -> None:
    with xapi(("127.0.0.1", "127.0.0.2")) as peer:
        session = Session(peer.uris[1], transport=peer.transport())
        said = refused(session.login_with_password, peer.user, peer.password)
        assert said == ["HOST_IS_SLAVE", "127.0.0.1"]
        api = peer.connect().xenapi
        assert len(api.host.get_all()) == 2
        pifs = api.PIF.get_all_records().values()
        assert len({pif["network"] for pif in pifs}) == 5 == len(pifs) // 2


def test_nobody_is_let_in_by_an_old_session(peer: Peer) -> None:
    session = peer.connect()
    ref = session.handle
    session.xenapi.session.logout()
    proxy = xmlrpc.client.ServerProxy(peer.uri, transport=peer.transport())
    answer: Any = proxy.VM.get_all(ref)
    assert answer["ErrorDescription"] == ["SESSION_INVALID", ref]


@pytest.mark.parametrize(
    ("call", "args", "code"),
    [
        ("VM.no_such", (), "MESSAGE_METHOD_UNKNOWN"),
        ("Async.event.from", ((), "", 1.0), "MESSAGE_METHOD_UNKNOWN"),
        ("VM.start", ("x", False), "MESSAGE_PARAMETER_COUNT_MISMATCH"),
        ("VM.set_VCPUs_max", ("x", 2), "FIELD_TYPE_ERROR"),
        ("VM.set_VCPUs_max", ("x", "two"), "FIELD_TYPE_ERROR"),
        ("VM.start", ("x", "false", False), "FIELD_TYPE_ERROR"),
        ("VM.set_domain_type", ("x", "container"), "FIELD_TYPE_ERROR"),
        ("VM.set_VCPUs_params", ("x", {"weight": 256}), "FIELD_TYPE_ERROR"),
        ("event.from", (["vm"], "", 1), "FIELD_TYPE_ERROR"),
        ("VM.set_power_state", ("x", "Running"), "MESSAGE_METHOD_UNKNOWN"),
        ("PIF.set_network", ("x", "y"), "MESSAGE_METHOD_UNKNOWN"),
        ("VM.set_protection_policy", ("x", "y"), "MESSAGE_REMOVED"),
        ("pool.eject", ("x",), "NOT_IMPLEMENTED"),
        ("VM.create", ({},), "NOT_IMPLEMENTED"),
        ("VM.add_to_VCPUs_params_live", ("x", "weight", "2"), "NOT_IMPLEMENTED"),
        ("VIF.create", ({"device": "0"},), "INTERNAL_ERROR"),
        ("network.create", ({"other_config": {}, "MTU": 1500},), "FIELD_TYPE_ERROR"),
    ],
)
def test_what_no_correct_client_sends_is_complained_of(
    call: str, args: tuple[Any, ...], code: str
) -> None:
    with xapi(checked=False) as peer:
        session = peer.connect()
        assert refused(session.xenapi_request, call, args)[0] == code
        (why,) = peer.complaints
        assert why
    with pytest.raises(AssertionError), xapi() as peer:
        refused(peer.connect().xenapi_request, call, args)


def test_what_is_gone_is_named(api: Any) -> None:
    assert refused(api.VM.get_record, "OpaqueRef:x") == ["HANDLE_INVALID", "VM", "OpaqueRef:x"]
    assert refused(api.SR.get_by_uuid, "x") == ["UUID_INVALID", "SR", "x"]


def test_a_key_is_there_once(peer: Peer, api: Any) -> None:
    network = peer.networks[1]
    api.network.add_to_other_config(network, "provision", "a")
    said = refused(api.network.add_to_other_config, network, "provision", "b")
    uuid = api.network.get_uuid(network)
    assert said == ["MAP_DUPLICATE_KEY", "network", "other_config", uuid, "provision"]
    api.network.remove_from_other_config(network, "provision")
    api.network.add_tags(network, "mine")
    api.network.add_tags(network, "mine")
    assert api.network.get_tags(network) == ["mine"]


def test_a_refused_task_says_why_and_stays(peer: Peer, api: Any) -> None:
    task = getattr(api, "Async").VM.start(peer.vm("debian12"), False, False)  # noqa: B009
    token = ""
    found: dict[str, Any] = {}
    while found.get("status", "pending") == "pending":
        reply = getattr(api.event, "from")([f"task/{task}"], token, 5.0)
        token, found = reply["token"], api.task.get_record(task)
    assert found["status"] == "failure"
    assert found["error_info"] == ["VM_IS_TEMPLATE", peer.vm("debian12"), "start"]
    assert len(peer.tasks()) == 1
    api.task.destroy(task)
    assert refused(api.task.get_status, task)[0] == "HANDLE_INVALID"


def test_events_come_once_and_in_order(peer: Peer, api: Any) -> None:
    wait = getattr(api.event, "from")
    first = wait(["network"], "", 1.0)
    assert len(first["events"]) == 5 and first["valid_ref_counts"]["pif"] == 5
    assert wait(["network"], first["token"], 0.01)["events"] == []
    made = api.network.create({"name_label": "mine", "other_config": {}})
    (event,) = wait(["network"], first["token"], 5.0)["events"]
    assert (event["class"], event["operation"], event["ref"]) == ("network", "add", made)
    assert event["snapshot"]["bridge"] == "xapi0"
    api.network.destroy(made)
    assert refused(wait, ["network"], "x", 1.0) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", "x"]
    assert refused(wait, ["cow"], "", 1.0) == ["EVENT_SUBSCRIPTION_PARSE_FAILURE", "cow"]
