"""The table that the peer enforces is the published data model, no more and no less of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.peers.xapi import store, table

ROOT = Path(__file__).parents[2]
VARIABLE = "PROVISION_XAPI_DATA"  # a folder with datamodel.json and errors.json


@pytest.fixture(scope="module")
def published() -> tuple[dict[str, Any], dict[str, Any]]:
    places = [Path(os.environ[VARIABLE])] if VARIABLE in os.environ else []
    places += [up / "shared" / "data" / "xapi" for up in ROOT.parents]
    for place in places:
        files = [place / "datamodel.json", place / "errors.json"]
        if all(file.is_file() for file in files):
            model, errors = (json.loads(file.read_text()) for file in files)
            return model, errors
    pytest.skip(f"XenAPI's data model is not at hand: {VARIABLE} names no folder with it")


def test_it_is_as_published(published: tuple[dict[str, Any], dict[str, Any]]) -> None:
    file = Path(table.__file__).with_name("model.json")
    assert json.loads(file.read_text()) == table.compact(*published)
    assert file.read_text() == table.text(table.compact(*published))


def test_messages_that_follow_from_fields(
    published: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """The published model lists them all; the table has none of them, and yet all are there."""
    for name, found in table.load().classes.items():
        source = published[0][name]["messages"]
        assert found.messages.keys() == source.keys(), name
        for verb, message in found.messages.items():
            wanted = source[verb]
            params = [p for p in wanted["params"] if p["name"] != "session_id"]
            assert message.params == tuple((p["name"], p["type"], p["required"]) for p in params)
            assert message.result == wanted["result"], f"{name}.{verb}"
            assert message.implicit == wanted.get("implicit", False), f"{name}.{verb}"
            assert [*message.errors] == wanted["errors"], f"{name}.{verb}"


def test_every_code_that_a_message_declares_is_known() -> None:
    model = table.load()
    declared = {
        code for has in model.classes.values() for m in has.messages.values() for code in m.errors
    }
    assert declared <= model.errors.keys()
    assert {*table.SAID} <= model.errors.keys()


@pytest.mark.parametrize("relation", store.RELATIONS)
def test_back_references_are_of_the_model(relation: tuple[str, str, str, str]) -> None:
    cls, name, target, back = relation
    classes = table.load().classes
    assert classes[cls].fields[name].type == f"{target} ref"
    assert classes[target].fields[back].type == f"{cls} ref set"
    assert classes[target].fields[back].qualifier == "RO/runtime"
